package story

import "testing"

func TestNamesAreWholeWords(t *testing.T) {
	for text, want := range map[string]bool{
		"Pod/a/b":                     true,
		"Pod/a/b, Pod/a/c":            true,
		"waits for Pod/a/b.":          true,
		"Pod/a/bc":                    false,
		"Pod/a/b-1":                   false,
		"Pod/a/b.example":             false,
		"Pod/a/bc and then (Pod/a/b)": true,
		"":                            false,
	} {
		if names(text, "Pod/a/b") != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

func TestStays(t *testing.T) {
	var list []Version
	for _, phase := range []string{"", "Preparing", "Preparing", "TrustingBoth", "Preparing"} {
		list = append(list, Version{Status: Status{Phase: phase}})
	}
	stays := Stays(list)
	if len(stays) != 3 || stays[0].Phase != "Preparing" || stays[1].Phase != "TrustingBoth" || stays[2].Phase != "Preparing" {
		t.Errorf("%+v", stays)
	}
}
