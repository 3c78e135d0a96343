package ledger

import (
	"strconv"
	"strings"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// setting is a parameter that votes may change, under the name by which
// proposals and operators call it. To is a *uint64, *bool, *fixed.Int or *[]AccountID.
type setting struct {
	Name string
	to   any
}

// settings of one pool. Asset is its id; MinDebt and EmodeID are reserved.
func (p *PoolParam) settings() []setting {
	return []setting{
		{"base", &p.Base}, {"opt", &p.Opt}, {"s1", &p.S1}, {"s2", &p.S2}, {"rf", &p.RF},
		{settingLTV, &p.LTV}, {settingLT, &p.LT}, {"bonus", &p.Bonus}, {"liq_fee", &p.LiqFee},
		{settingSupplyCap, &p.SupplyCap}, {settingBorrowCap, &p.BorrowCap},
		{"same_asset", &p.SameAsset}, {"same_asset_dust", &p.SameAssetDust},
		{settingCapHourBps, &p.CapHourBps}, {settingCapDayBps, &p.CapDayBps}, {settingCapHour, &p.CapHour}, {settingCapDay, &p.CapDay},
		{"min_supply", &p.MinSupply}, {"min_borrow", &p.MinBorrow}, {"min_withdraw", &p.MinWithdraw},
	}
}

// settings of the whole cluster. Not among them: RoundSeconds, by which oracle
// rounds are numbered, and numbers must not fall (I8); AllowNoFaultTolerance,
// which comes with an epoch; the delays of votes and of payout lists, which are
// what users rely on when they decide to stay; quarantines and the time for going
// back, or m members could make them nothing for their own newcomer; and the window and slippage of
// simple loans, which a signer took into account.
func (p *Params) settings() []setting {
	return []setting{
		{"presence_millis", &p.PresenceMillis}, {"attempt_millis", &p.AttemptMillis}, {"fee_max_age_millis", &p.FeeMaxAgeMillis},
		{"price_max_age", &p.PriceMaxAge}, {"liquidation_age", &p.LiquidationAge}, {"deviation_bps", &p.DeviationBps},
		{"twap_alert_bps", &p.TWAPAlertBps},
		{"expiry_seconds", &p.ExpirySeconds}, {"queue_seconds", &p.QueueSeconds},
		{"min_coin", &p.MinCoin}, {"sweep_multiple", &p.SweepMultiple}, {settingEIP712, &p.EIP712},
		{"first_dip_seconds", &p.FirstDipSeconds}, {"repay_grace_sec", &p.RepayGraceSec}, {"not_closing", &p.NotClosing},
		{"freeze_deficit_bps", &p.FreezeDeficitBps}, {"target_hf", &p.TargetHF}, {"one_price", &p.OnePrice},
		{"unfinal_counts", &p.UnfinalCounts}, {"liquidator_sec", &p.LiquidatorSec},
		{"boost_seconds", &p.BoostSeconds}, {"blame_seconds", &p.BlameSeconds}, {"reshare_seconds", &p.ReshareSeconds}, {"try_seconds", &p.TrySeconds},
		{"insurance_bps", &p.InsuranceBps}, {"insurance", &p.Insurance},
	}
}

// Settings whose direction decides how long a change waits.
const (
	settingLTV       = "ltv"
	settingLT        = "lt"
	settingSupplyCap = "supply_cap"
	settingBorrowCap = "borrow_cap"
	settingEIP712    = "eip712"

	settingCapHourBps = "cap_hour_bps"
	settingCapDayBps  = "cap_day_bps"
	settingCapHour    = "cap_hour"
	settingCapDay     = "cap_day"
)

// isCap: a bound of which 0 means none, so 0 is the highest there is.
func isCap(name string) bool {
	switch name {
	case settingSupplyCap, settingBorrowCap, settingCapHourBps, settingCapDayBps, settingCapHour, settingCapDay:
		return true
	}
	return false
}

func settingNamed(all []setting, name string) (setting, bool) {
	for _, v := range all {
		if v.Name == name {
			return v, true
		}
	}
	return setting{}, false
}

// text is the one spelling of its value: digits, true and false, or account ids
// joined by commas.
func (v setting) text() string {
	switch to := v.to.(type) {
	case *uint64:
		return strconv.FormatUint(*to, 10)
	case *bool:
		return strconv.FormatBool(*to)
	case *fixed.Int:
		return to.String()
	case *[]AccountID:
		return strings.Join(*to, ",")
	}
	panic("ledger: a setting of no known type: " + v.Name)
}

// set reads a value in its one spelling.
func (v setting) set(text string) bool {
	switch to := v.to.(type) {
	case *uint64:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return false
		}
		*to = n
	case *bool:
		*to = text == "true"
	case *fixed.Int:
		n, err := fixed.Parse(text)
		if err != nil {
			return false
		}
		*to = n
	case *[]AccountID:
		*to = nil // a new list: the old one is shared
		if text != "" {
			*to = strings.Split(text, ",")
		}
	}
	return v.text() == text
}

// falls reports whether text is less than the present value. A cap of 0 is none:
// the highest there is.
func (v setting) falls(text string) bool {
	old, err := fixed.Parse(v.text())
	n, err2 := fixed.Parse(text)
	if err != nil || err2 != nil {
		return false
	}
	if isCap(v.Name) {
		return !n.IsZero() && (old.IsZero() || n.Less(old))
	}
	return n.Less(old)
}

// step is the value that a falling ratio takes today: the wanted one, or one
// step down.
func (v setting) step(want string) string {
	old := *v.to.(*uint64)
	low := old - min(old, maxStepBps)
	if n, err := strconv.ParseUint(want, 10, 64); err != nil || n < low {
		return strconv.FormatUint(low, 10)
	}
	return want
}

// Setting is a parameter and its value, for showing.
type Setting struct{ Pool, Name, Value string }

// Settings lists what Set proposals may change, with the values in force.
func (s *State) Settings() []Setting {
	var out []Setting
	p := s.Params
	for _, v := range p.settings() {
		out = append(out, Setting{"", v.Name, v.text()})
	}
	for id, pool := range s.Pools.all() {
		for _, v := range pool.Param.settings() {
			out = append(out, Setting{id, v.Name, v.text()})
		}
	}
	return out
}
