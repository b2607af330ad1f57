package fault

import (
	"fmt"
	"testing"
)

// draws lists what strikes a fixed course of requests.
func draws(seed int64, kinds ...Kind) []Kind {
	s := &Schedule{Seed: seed, Kinds: kinds}
	var list []Kind
	for i := range 400 {
		list = append(list, s.Strike(Write, "PATCH", fmt.Sprintf("/object-%d", i%7)))
		list = append(list, s.Strike(List, "GET", fmt.Sprintf("/list-%d", i%11)))
		list = append(list, s.Strike(Frame, "WATCH", "/watch"))
	}
	return list
}

func TestSameSeedStrikesTheSame(t *testing.T) {
	one, again, other := fmt.Sprint(draws(1, Kinds()...)), fmt.Sprint(draws(1, Kinds()...)), fmt.Sprint(draws(2, Kinds()...))
	if one != again {
		t.Error("the same seed struck others")
	}
	if one == other {
		t.Error("another seed struck the same")
	}
}

func TestEveryKindStrikesAlone(t *testing.T) {
	for _, k := range Kinds() {
		struck := 0
		for _, have := range draws(3, k) {
			switch have {
			case k:
				struck++
			case "":
			default:
				t.Fatalf("%s was asked for, %s struck", k, have)
			}
		}
		if struck == 0 {
			t.Errorf("%s never struck", k)
		}
		if limit := most[k][List] + most[k][Frame]; limit > 0 && struck > limit {
			t.Errorf("%s struck %d times, more than %d", k, struck, limit)
		}
	}
}

func TestNothingStrikesUnasked(t *testing.T) {
	for _, have := range draws(1) {
		if have != "" {
			t.Fatalf("%s struck", have)
		}
	}
}

func TestChances(t *testing.T) {
	s := &Schedule{Seed: 5, Kinds: []Kind{Lost}}
	struck := 0
	for i := range 10000 {
		if s.Strike(Write, "PUT", fmt.Sprintf("/%d", i)) != "" {
			struck++
		}
	}
	if struck < 3300 || struck > 3700 {
		t.Errorf("%d of 10000 writes were struck, expected about 3500", struck)
	}
}

func TestSpellsOutlastAClientsTries(t *testing.T) {
	s := &Schedule{Seed: 1, Kinds: []Kind{Internal}}
	longest, now := 0, 0
	for range 5000 {
		if s.Strike(List, "GET", "/list") == "" {
			now = 0
			continue
		}
		now++
		longest = max(longest, now)
	}
	if longest < 6 {
		t.Errorf("at most %d in a row", longest)
	}
}
