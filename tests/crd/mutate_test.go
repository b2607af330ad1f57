package crd

import (
	"fmt"
	"regexp"
	"slices"
)

// mutation is one thing wrong with a spec that was right.
type mutation struct {
	what  string
	field string // by which the refusal must name it
	spec  any
}

// wrong looks for everything that can be wrong with one.
type wrong struct {
	g    *generator
	spec any
	all  []mutation
}

// mutations gives every one that the schema knows of for what this spec has.
func (g *generator) mutations(root *schema, spec map[string]any) []mutation {
	w := &wrong{g: g, spec: spec}
	w.visit(root.Properties["spec"], "spec", "spec", spec, func(value any) any { return value })
	w.between()
	return w.all
}

// visit breaks the value at a place; put gives the whole spec with another value there.
func (w *wrong) visit(s *schema, path, field string, value any, put func(any) any) {
	add := func(what string, to any) { w.all = append(w.all, mutation{what, field, put(to)}) }
	for _, other := range []any{"text", int64(7), 1.5, true, []any{}, map[string]any{}} {
		if !s.takes(other) {
			add("another type", other)
		}
	}
	if rule, is := ruled[path]; is {
		for _, broken := range rule.broke(w.g, s) {
			add("against its rule", broken)
		}
	}
	switch v := value.(type) {
	case map[string]any:
		w.object(s, path, field, v, put)
	case []any:
		w.array(s, path, field, v, put)
	case string:
		w.string(s, v, add)
	case int64:
		add("too small", *s.Minimum-1)
		add("too large", *s.Maximum+1)
		add("beyond 32 bits", int64(1)<<40)
		add("a fraction", float64(v)+0.5)
	}
}

// takes is about the type alone.
func (s *schema) takes(value any) bool {
	switch value.(type) {
	case string:
		return s.Type == "string"
	case int64:
		return s.Type == "integer"
	case bool:
		return s.Type == "boolean"
	case []any:
		return s.Type == "array"
	case map[string]any:
		return s.Type == "object"
	}
	return false
}

func (w *wrong) object(s *schema, path, field string, object map[string]any, put func(any) any) {
	with := func(name string, value any) any {
		m := copied(object).(map[string]any)
		if m[name] = value; value == nil {
			delete(m, name)
		}
		return put(m)
	}
	for _, name := range s.Required {
		w.all = append(w.all, mutation{"without what is required", join(field, name), with(name, nil)})
	}
	stray := "x" + w.g.matching(parsed(w.g.t, `[a-zA-Z]{1,12}`), 12)
	w.all = append(w.all, mutation{"an unknown field", join(field, stray), with(stray, "a")})
	for name, value := range object {
		w.visit(s.Properties[name], join(path, name), join(field, name), value, func(to any) any { return with(name, to) })
	}
}

func (w *wrong) array(s *schema, path, field string, list []any, put func(any) any) {
	add := func(what string, to any) { w.all = append(w.all, mutation{what, field, put(to)}) }
	if s.MinItems > 0 {
		add("too few", list[:s.MinItems-1])
	}
	if s.ListType == "set" {
		add("twice the same", append(slices.Clone(list), list[len(list)-1]))
	}
	many := slices.Clone(list)
	for len(many) <= *s.MaxItems {
		many = append(many, w.g.value(s.Items, path+"[]", true))
	}
	add("too many", many)
	i := w.g.IntN(len(list))
	w.visit(s.Items, path+"[]", fmt.Sprintf("%s[%d]", field, i), list[i], func(to any) any {
		changed := slices.Clone(list)
		changed[i] = to
		return put(changed)
	})
}

func (w *wrong) string(s *schema, value string, add func(what string, to any)) {
	if len(s.Enum) > 0 {
		for _, other := range []string{"", value + "x", w.g.anything(20)} {
			add("none of those that are allowed", other)
		}
		return
	}
	if s.MinLength > 0 {
		add("too short", value[:s.MinLength-1])
	}
	long := []rune(value)
	for len(long) <= *s.MaxLength {
		long = append(long, 'a')
	}
	add("too long", string(long))
	if s.Pattern == "" {
		return
	}
	right := regexp.MustCompile(s.Pattern)
	for _, other := range []string{value + "\n", " " + value, value + "/", "é", "../x", "%", w.g.anything(s.MinLength + 3)} {
		if n := len([]rune(other)); !right.MatchString(other) && n >= s.MinLength && n <= *s.MaxLength {
			add("of another form", other)
		}
	}
}

// between breaks the rules between fields.
func (w *wrong) between() {
	longer := copied(w.spec).(map[string]any)
	longer["newAuthority"] = map[string]any{"validityPeriod": "24h"}
	longer["leaves"] = map[string]any{"validityPeriod": "24h1s"}
	w.all = append(w.all, mutation{"leaves longer than the authority", "spec.leaves.validityPeriod", longer})
	several := copied(w.spec).(map[string]any)
	several["authorities"] = []any{"Kubernetes", "Etcd"}
	several["newAuthority"] = map[string]any{"secretRef": map[string]any{"name": "a"}}
	several["strategy"] = "Bridge"
	delete(several, "leaves")
	w.all = append(w.all, mutation{"one Secret for two authorities", "spec.newAuthority.secretRef", several})
	bundle := copied(w.spec).(map[string]any)
	bundle["authorities"], bundle["strategy"] = []any{"Etcd"}, "Bundle"
	delete(bundle, "newAuthority")
	delete(bundle, "leaves")
	w.all = append(w.all, mutation{"Bundle for another authority than Kubernetes", "spec.strategy", bundle})
}
