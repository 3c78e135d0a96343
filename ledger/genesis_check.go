package ledger

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// The word of a chain in derivation paths, parameters and attestations.
const (
	Bitcoin  = address.ChainBTC
	Ethereum = address.ChainETH
)

// Validate says what is wrong with a genesis. Everything a node later takes for
// granted about it is checked here, once.
func (g Genesis) Validate() error {
	if g.Version != 1 {
		return fmt.Errorf("format version %d, this release knows 1", g.Version)
	}
	if n := len(g.Name); n < 1 || n > 24 || strings.Trim(g.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("cluster name %q, want 1 to 24 of a-z 0-9 -", g.Name)
	}
	if g.Brand == "" || len(g.Brand) > 64 || strings.ContainsAny(g.Brand, "\n\r\t") {
		return fmt.Errorf("brand %q, want 1 to 64 printable characters", g.Brand)
	}
	if g.Epoch.Number != 0 {
		return fmt.Errorf("genesis epoch %d, want 0", g.Epoch.Number)
	}
	if err := g.Epoch.Validate(g.Params.AllowNoFaultTolerance); err != nil {
		return err
	}
	for i, c := range g.Chains {
		if i > 0 && g.Chains[i-1].Name >= c.Name {
			return errors.New("chains not sorted by name, or doubled")
		}
		if c.Name != Bitcoin && c.Name != Ethereum {
			return fmt.Errorf("chain %q is not known to this release", c.Name)
		}
		if c.MinRate == 0 || c.MaxRate < c.MinRate {
			return fmt.Errorf("chain %s: fee floor %d and cap %d", c.Name, c.MinRate, c.MaxRate)
		}
		if c.Name == Bitcoin && (c.Final == 0 || c.BlockSubsidy == 0) {
			return fmt.Errorf("chain %s: finality depth and block subsidy must be given", c.Name)
		}
	}
	for i, id := range g.Wallets {
		namespace, reference, _ := strings.Cut(id, ":")
		chain := address.CAIP10{Namespace: namespace, Reference: reference}
		if _, err := address.SplitCAIP10(id + ":x"); err != nil || chain.Network() == "" || i > 0 && g.Wallets[i-1] >= id ||
			slices.ContainsFunc(g.Chains, func(c ChainParam) bool { return c.CAIP2 == id }) {
			return fmt.Errorf("wallets of chain %q: no chain whose signatures are known, a chain that is listed, or not sorted", id)
		}
	}
	for i, a := range g.Assets {
		if i > 0 && g.Assets[i-1].ID >= a.ID {
			return errors.New("assets not sorted by id, or doubled")
		}
		if _, ok := g.Chain(a.Chain); !ok {
			return fmt.Errorf("asset %s: unknown chain %q", a.ID, a.Chain)
		}
		if a.Decimals > 30 {
			return fmt.Errorf("asset %s: %d decimals, want at most 30", a.ID, a.Decimals)
		}
		if a.Chain == Ethereum && a.Gas == 0 {
			return fmt.Errorf("asset %s: no gas limit", a.ID)
		}
		if a.Token != "" {
			if _, err := address.ParseEthereum(a.Token); err != nil {
				return fmt.Errorf("asset %s: token: %w", a.ID, err)
			}
		}
	}
	for i, p := range g.Pools {
		if i > 0 && g.Pools[i-1].Asset >= p.Asset {
			return errors.New("pools not sorted by asset, or doubled")
		}
		if _, ok := g.Asset(p.Asset); !ok {
			return fmt.Errorf("pool %s: unknown asset", p.Asset)
		}
		if err := p.Validate(); err != nil {
			return fmt.Errorf("pool %s: %w", p.Asset, err)
		}
	}
	return g.Params.Validate()
}

// maxPeriod bounds every period among the parameters, in seconds: what a vote
// could make longer for ever would never come. Sums of times stay far from
// overflow.
const maxPeriod = 30 * 86_400

// Validate says which bound the parameters break.
func (p Params) Validate() error {
	for _, ms := range []uint64{p.PresenceMillis, p.AttemptMillis, p.FeeMaxAgeMillis} {
		if ms == 0 || ms > maxPeriod*1000 {
			return fmt.Errorf("a period of %d ms among the parameters, want 1 to %d", ms, maxPeriod*1000)
		}
	}
	for _, sec := range []uint64{
		p.PriceMaxAge, p.LiquidationAge, p.RoundSeconds, p.ExpirySeconds, p.QueueSeconds, p.BoostSeconds,
		p.LiftSeconds, p.SetSeconds, p.LowerSeconds, p.StepSeconds, p.SocialiseSeconds, p.ProposalSeconds,
		p.AdmitSeconds, p.SeatSeconds, p.ReshareSeconds, p.TrySeconds, p.RollbackSeconds,
	} {
		if sec == 0 || sec > maxPeriod {
			return fmt.Errorf("a period of %d s among the parameters, want 1 to %d", sec, maxPeriod)
		}
	}
	switch {
	case p.DeviationBps == 0 || p.DeviationBps > bpsScale:
		return fmt.Errorf("deviation of %d bps, want 1 to %d", p.DeviationBps, bpsScale)
	case p.TWAPAlertBps > bpsScale:
		return fmt.Errorf("alert at %d bps from the average, want at most %d", p.TWAPAlertBps, bpsScale)
	case p.MinCoin > 100_000_000:
		return fmt.Errorf("min_coin of %d sats is more than a coin", p.MinCoin)
	case p.BlameSeconds < minBlameSeconds || p.BlameSeconds > maxBlameSeconds:
		return fmt.Errorf("blamed members last for %d s, want %d to %d", p.BlameSeconds, minBlameSeconds, maxBlameSeconds)
	case p.SweepMultiple == 0 || p.SweepMultiple > 1000:
		return fmt.Errorf("sweep multiple %d, want 1 to 1000", p.SweepMultiple)
	}
	return p.validatePolicy()
}

// Bounds of BlameSeconds: below ten minutes a traitor would be in the next
// committee but one, and a week is as long as operators take to vote.
const (
	minBlameSeconds = 600
	maxBlameSeconds = 7 * 86_400
)

// Bounds of the policy layer (spec: lending §8.4).
const (
	minFirstDipSeconds  = 15 // one round
	maxFirstDipSeconds  = 60
	maxRepayGraceSec    = 3_600
	maxLiquidatorSec    = 7 * 86_400
	maxTargetPercent    = 200 // of HF 1: beyond it a liquidation would close sound loans
	maxInsuranceBps     = 10_000
	maxFreezeDeficitBps = 10_000
)

// validatePolicy says which bound a parameter of the policy layer breaks.
func (p Params) validatePolicy() error {
	most := must(fixed.MulDivFloor(fixed.Wad, fixed.New(maxTargetPercent), fixed.New(100)))
	switch {
	case p.FirstDipSeconds != 0 && p.FirstDipSeconds < minFirstDipSeconds || p.FirstDipSeconds > maxFirstDipSeconds:
		return fmt.Errorf("first-dip grace of %d s, want 0 or %d to %d", p.FirstDipSeconds, minFirstDipSeconds, maxFirstDipSeconds)
	case p.RepayGraceSec > maxRepayGraceSec:
		return fmt.Errorf("repay grace of %d s, at most %d", p.RepayGraceSec, maxRepayGraceSec)
	case p.LiquidatorSec > maxLiquidatorSec:
		return fmt.Errorf("gates on liquidators for %d s, at most %d", p.LiquidatorSec, maxLiquidatorSec)
	case p.FreezeDeficitBps > maxFreezeDeficitBps:
		return fmt.Errorf("freeze on deficit at %d bps, at most %d", p.FreezeDeficitBps, maxFreezeDeficitBps)
	case !p.TargetHF.IsZero() && (p.TargetHF.Less(fixed.Wad) || most.Less(p.TargetHF)):
		return fmt.Errorf("target HF %s, want 0 or %s to %s", p.TargetHF, fixed.Wad, most)
	case p.InsuranceBps > maxInsuranceBps:
		return fmt.Errorf("insurance share %d bps, at most %d", p.InsuranceBps, maxInsuranceBps)
	case len(p.Insurance) > MaxInsurance:
		return fmt.Errorf("%d insurance accounts, at most %d", len(p.Insurance), MaxInsurance)
	}
	for i, id := range p.Insurance {
		if b, err := hexBytes16(id); err != nil || hex.EncodeToString(b[:]) != id || slices.Contains(p.Insurance[:i], id) {
			return fmt.Errorf("insurance account %q: want 32 lower-case hex digits, once", id)
		}
	}
	return nil
}

// Native returns the asset that pays a chain's fees.
func (g Genesis) Native(chain string) (AssetParam, bool) {
	for _, a := range g.Assets {
		if a.Chain == chain && a.Token == "" {
			return a, true
		}
	}
	return AssetParam{}, false
}

// TokenAsset returns the asset of a token contract, EIP-55.
func (g Genesis) TokenAsset(chain, token string) (AssetParam, bool) {
	for _, a := range g.Assets {
		if a.Chain == chain && a.Token == token && token != "" {
			return a, true
		}
	}
	return AssetParam{}, false
}
