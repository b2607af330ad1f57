package crd

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// generator makes values that the schema allows, edges more often than the rest.
type generator struct {
	*rand.Rand
	t *testing.T
}

// ruled are the values on which a CEL rule rests: how one is made that keeps it, and some that break it and nothing else.
var ruled = map[string]struct {
	keep  func(g *generator, s *schema) any
	broke func(g *generator, s *schema) []any
}{
	"spec.newAuthority.validityPeriod": {(*generator).duration, (*generator).notDuration},
	"spec.leaves.validityPeriod":       {(*generator).duration, (*generator).notDuration},
	"spec.deadline":                    {(*generator).duration, (*generator).notDuration},
	"spec.acceptStragglers.names[]":    {(*generator).straggler, (*generator).notStraggler},
}

// crossing are rules between fields: mend makes a spec keep them all, and broken breaks one each, whose field is named.
var crossing = map[string]string{
	"spec": "duration(self.leaves.validityPeriod) <= duration(self.newAuthority.validityPeriod); size(self.authorities) == 1; Bundle rotates Kubernetes alone",
	"":     "what is locked while a run is under way: TestInFlight",
}

// assertKnown: a rule that nobody here knows would never be broken.
func assertKnown(t *testing.T, root *schema) {
	t.Helper()
	root.walk("", func(path string, s *schema) {
		_, one := ruled[path]
		_, between := crossing[path]
		if len(s.Validations) > 0 && !one && !between {
			t.Errorf("%s has rules, %q first, that this test can neither keep nor break; teach it", path, s.Validations[0].Rule)
		}
	})
	if spec := root.Properties["spec"]; len(spec.Validations) != 3 {
		t.Errorf("spec has %d rules between its fields; this test knows three", len(spec.Validations))
	}
}

func (g *generator) between(low, high int) int {
	switch g.IntN(4) {
	case 0:
		return low
	case 1:
		return high
	}
	return low + g.IntN(high-low+1)
}

// value makes one; full: with every field that may be there.
func (g *generator) value(s *schema, path string, full bool) any {
	if rule, is := ruled[path]; is {
		return rule.keep(g, s)
	}
	if len(s.Enum) > 0 {
		return s.Enum[g.IntN(len(s.Enum))]
	}
	switch s.Type {
	case "object":
		return g.object(s, path, full)
	case "array":
		return g.array(s, path, full, g.between(s.MinItems, *s.MaxItems))
	case "boolean":
		return g.IntN(2) == 0
	case "integer":
		return int64(g.between(int(*s.Minimum), int(*s.Maximum)))
	case "string":
		return g.string(s)
	}
	g.t.Fatalf("%s is of type %q; teach this test to make one", path, s.Type)
	return nil
}

func (g *generator) object(s *schema, path string, full bool) any {
	object := map[string]any{}
	for name, property := range s.Properties {
		if full || s.requires(name) || g.IntN(2) == 0 {
			object[name] = g.value(property, join(path, name), full)
		}
	}
	return object
}

func (g *generator) array(s *schema, path string, full bool, n int) any {
	list, seen := []any{}, map[string]bool{}
	for tries := 0; len(list) < n && tries < 100*n; tries++ {
		item := g.value(s.Items, path+"[]", full)
		if !seen[text(item)] {
			list = append(list, item)
		}
		seen[text(item)] = s.ListType == "set"
	}
	return list
}

func (g *generator) string(s *schema) any {
	if s.Pattern == "" {
		return g.anything(g.between(s.MinLength, *s.MaxLength))
	}
	for range 1000 {
		made := g.matching(parsed(g.t, s.Pattern), *s.MaxLength)
		if n := utf8.RuneCountInString(made); n >= s.MinLength && n <= *s.MaxLength {
			return made
		}
	}
	g.t.Fatalf("nothing of %d to %d characters was found that matches %s", s.MinLength, *s.MaxLength, s.Pattern)
	return nil
}

// anything is text that a person would not write: quotes, ends of lines, letters of several bytes. Lengths are in characters.
func (g *generator) anything(n int) string {
	letters := []rune("aZ09-_. /\\\"'`$%{}<>&\n\t\u0001äß中🔑\u202e")
	made := make([]rune, n)
	for i := range made {
		made[i] = letters[g.IntN(len(letters))]
	}
	return string(made)
}

func parsed(t *testing.T, pattern string) *syntax.Regexp {
	t.Helper()
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		t.Fatal(err)
	}
	return re
}

// matching makes text that the expression matches; what may come any number of times comes up to `most` times.
func (g *generator) matching(re *syntax.Regexp, most int) string {
	low, high := 1, 1
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		i := g.IntN(len(re.Rune)/2) * 2
		return string(re.Rune[i] + rune(g.IntN(int(re.Rune[i+1]-re.Rune[i])+1)))
	case syntax.OpAlternate:
		return g.matching(re.Sub[g.IntN(len(re.Sub))], most)
	case syntax.OpBeginText, syntax.OpEndText, syntax.OpEmptyMatch:
		return ""
	case syntax.OpStar:
		low, high = 0, most
	case syntax.OpPlus:
		high = most
	case syntax.OpQuest:
		low = 0
	case syntax.OpRepeat:
		low, high = re.Min, re.Max
	case syntax.OpConcat, syntax.OpCapture:
	default:
		g.t.Fatalf("%s: an operation that this test can't follow; teach it", re)
	}
	var made strings.Builder
	for range g.between(low, high) {
		for _, part := range re.Sub {
			made.WriteString(g.matching(part, most))
		}
	}
	return made.String()
}

// bounds of a duration, out of the rule itself.
func (g *generator) bounds(s *schema) (least, most time.Duration) {
	found := regexp.MustCompile(`^duration\(self\) >= duration\('(\w+)'\) && duration\(self\) <= duration\('(\w+)'\)$`).FindStringSubmatch(s.Validations[0].Rule)
	if len(s.Validations) != 1 || found == nil {
		g.t.Fatalf("%q: this test knows no such rule of a duration; teach it", s.Validations[0].Rule)
	}
	return lasting(found[1]), lasting(found[2])
}

func lasting(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err) // the API server takes none that Go does not
	}
	return d
}

// in writes a duration as one of the forms that mean it.
func (g *generator) in(d time.Duration) string {
	s := int64(d / time.Second)
	forms := []string{fmt.Sprintf("%dh%dm%ds", s/3600, s%3600/60, s%60)}
	if s%3600 == 0 {
		forms = append(forms, fmt.Sprintf("%dh", s/3600))
	}
	if s < 999999999 {
		forms = append(forms, fmt.Sprintf("%ds", s))
	}
	return forms[g.IntN(len(forms))]
}

func (g *generator) duration(s *schema) any {
	least, most := g.bounds(s)
	return g.in(time.Duration(g.between(int(least/time.Second), int(most/time.Second))) * time.Second)
}

func (g *generator) notDuration(s *schema) []any {
	least, most := g.bounds(s)
	return []any{g.in(least - time.Second), g.in(most + time.Second), "0s", "999999h9999999m999999999s"}
}

func (g *generator) straggler(*schema) any {
	name := func(most int) string {
		return g.matching(parsed(g.t, `[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?`), most)
	}
	alone := []string{"Node", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService", "CustomResourceDefinition"}
	if g.IntN(2) == 0 {
		return alone[g.IntN(len(alone))] + "/" + name(20) + "." + name(20)
	}
	kinds := []string{"Pod", "Deployment", "DaemonSet", "StatefulSet", "Job", "A1"}
	return kinds[g.IntN(len(kinds))] + "/" + name(20) + "/" + name(20)
}

func (g *generator) notStraggler(*schema) []any {
	return []any{"*", "Pod/legacy", "Node/a/b", "pod/a/b", "Pod/a/b/c", "Pod/A/b", "Pod/a/", "/", g.anything(384)}
}

// spec makes one that keeps the rules between its fields too.
func (g *generator) spec(root *schema, full bool) map[string]any {
	spec := g.value(root.Properties["spec"], "spec", full).(map[string]any)
	g.mend(spec)
	return spec
}

// mend makes leaves as short as the authority, one authority of those that a Secret would have to bring, and Bundle's own of any.
func (g *generator) mend(spec map[string]any) {
	authority, _ := spec["newAuthority"].(map[string]any)
	if list, has := spec["authorities"].([]any); has && authority["secretRef"] != nil {
		spec["authorities"] = list[:1]
	}
	if list, has := spec["authorities"].([]any); has && spec["strategy"] == "Bundle" && text(list) != `["Kubernetes"]` {
		spec["authorities"] = []any{"Kubernetes"}
	}
	leaves, _ := spec["leaves"].(map[string]any)
	life, has := authority["validityPeriod"].(string)
	if !has {
		life = "87600h" // the default
	}
	if period, has := leaves["validityPeriod"].(string); has && lasting(period) > lasting(life) {
		leaves["validityPeriod"] = life
	}
}
