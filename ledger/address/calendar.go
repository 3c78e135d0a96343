package address

import "strconv"

// The calendar of RFC 3339 in UTC and whole seconds. Why not package time: the
// ledger may not import it, and its parser takes more than one spelling (a
// comma, seconds of 60 under some layouts). Days are counted as in Howard
// Hinnant's "chrono-compatible low-level date algorithms".

const (
	secondsPerDay = 24 * 60 * 60
	maxUnix       = 253402300799 // 9999-12-31T23:59:59Z, the last of four-digit years
)

// formatTime writes YYYY-MM-DDTHH:MM:SSZ for 0 ≤ unix ≤ maxUnix.
func formatTime(unix int64) string {
	y, m, d := civil(unix / secondsPerDay)
	s := unix % secondsPerDay
	b := make([]byte, 0, 20)
	b = append(pad(b, y, 4), '-')
	b = append(pad(b, m, 2), '-')
	b = append(pad(b, d, 2), 'T')
	b = append(pad(b, s/3600, 2), ':')
	b = append(pad(b, s/60%60, 2), ':')
	return string(append(pad(b, s%60, 2), 'Z'))
}

// parseTime reads exactly what formatTime writes.
func parseTime(s string) (int64, bool) {
	if len(s) != 20 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' || s[19] != 'Z' {
		return 0, false
	}
	var v [6]int64
	for i, at := range [6][2]int{{0, 4}, {5, 7}, {8, 10}, {11, 13}, {14, 16}, {17, 19}} {
		for _, c := range []byte(s[at[0]:at[1]]) {
			if c < '0' || c > '9' {
				return 0, false
			}
			v[i] = v[i]*10 + int64(c-'0')
		}
	}
	// A day or month that does not exist counts on into the next one and does
	// not come back the same.
	if v[1] < 1 || v[1] > 12 {
		return 0, false
	}
	unix := days(v[0], v[1], v[2])*secondsPerDay + v[3]*3600 + v[4]*60 + v[5]
	if unix < 0 || unix > maxUnix || formatTime(unix) != s {
		return 0, false
	}
	return unix, true
}

// days since 1970-01-01 of a date of the years 0 to 9999.
func days(y, m, d int64) int64 {
	if m <= 2 { // the year begins in March, so that the leap day is its last
		y--
		m += 12
	}
	if y < 0 {
		return -1
	}
	return 365*y + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + d - 1 - 719468
}

// civil is the date of a day since 1970-01-01, day ≥ 0.
func civil(day int64) (y, m, d int64) {
	day += 719468 // days from 0000-03-01
	era, doe := day/146097, day%146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	y, m, d = era*400+yoe, mp+3, doy-(153*mp+2)/5+1
	if m > 12 {
		y, m = y+1, m-12
	}
	return y, m, d
}

func pad(b []byte, n int64, width int) []byte {
	s := strconv.FormatInt(n, 10)
	for range width - len(s) {
		b = append(b, '0')
	}
	return append(b, s...)
}
