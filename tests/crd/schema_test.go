package crd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const definition = "../../crd/certificaterotation.yaml"

// schema is what the definition says of one value. A keyword that is not among these fails the test: what it asks for would go untested.
type schema struct {
	Type        string             `json:"type"`
	Format      string             `json:"format"`
	Description string             `json:"description"`
	Default     any                `json:"default"`
	Enum        []any              `json:"enum"`
	Pattern     string             `json:"pattern"`
	MinLength   int                `json:"minLength"`
	MaxLength   *int               `json:"maxLength"`
	Minimum     *int64             `json:"minimum"`
	Maximum     *int64             `json:"maximum"`
	MinItems    int                `json:"minItems"`
	MaxItems    *int               `json:"maxItems"`
	Items       *schema            `json:"items"`
	Properties  map[string]*schema `json:"properties"`
	Required    []string           `json:"required"`
	ListType    string             `json:"x-kubernetes-list-type"`
	ListMapKeys []string           `json:"x-kubernetes-list-map-keys"`
	Validations []validation       `json:"x-kubernetes-validations"`
}

type validation struct {
	Rule              string `json:"rule"`
	Message           string `json:"message"`
	MessageExpression string `json:"messageExpression"`
	FieldPath         string `json:"fieldPath"`
	Reason            string `json:"reason"`
}

func readSchema(t *testing.T) *schema {
	t.Helper()
	text, err := os.ReadFile(definition)
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema json.RawMessage `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &crd); err != nil || len(crd.Spec.Versions) != 1 {
		t.Fatalf("%s: %v, %d versions", definition, err, len(crd.Spec.Versions))
	}
	root := &schema{}
	strict := json.NewDecoder(bytes.NewReader(crd.Spec.Versions[0].Schema.OpenAPIV3Schema))
	strict.DisallowUnknownFields()
	if err := strict.Decode(root); err != nil {
		t.Fatalf("%s: %v; teach this test what it means", definition, err)
	}
	return root
}

// walk shows every value that can be there, by a path like spec.acceptStragglers.names[].
func (s *schema) walk(path string, see func(path string, s *schema)) {
	see(path, s)
	for name, property := range s.Properties {
		property.walk(join(path, name), see)
	}
	if s.Items != nil {
		s.Items.walk(path+"[]", see)
	}
}

func (s *schema) requires(name string) bool {
	for _, r := range s.Required {
		if r == name {
			return true
		}
	}
	return false
}

// locked are the fields of spec that can't change while a run is under way: those that a rule on the whole object names.
func (s *schema) locked() []string {
	var names []string
	for _, v := range s.Validations {
		names = append(names, strings.TrimPrefix(v.FieldPath, ".spec."))
	}
	return names
}

// complete fills in defaults, as the API server does.
func (s *schema) complete(value any) {
	switch v := value.(type) {
	case map[string]any:
		for name, property := range s.Properties {
			if _, has := v[name]; !has && property.Default != nil {
				v[name] = copied(property.Default)
			}
			if _, has := v[name]; has {
				property.complete(v[name])
			}
		}
	case []any:
		for _, item := range v {
			s.Items.complete(item)
		}
	}
}

// canonical is the same for values that mean the same: a set has no order.
func (s *schema) canonical(value any) string {
	list, is := value.([]any)
	if !is || s.ListType != "set" {
		return text(value)
	}
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b any) int { return strings.Compare(text(a), text(b)) })
	return text(sorted)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func copied(value any) any {
	switch v := value.(type) {
	case map[string]any:
		m := map[string]any{}
		for name, item := range v {
			m[name] = copied(item)
		}
		return m
	case []any:
		list := []any{}
		for _, item := range v {
			list = append(list, copied(item))
		}
		return list
	case float64: // only whole numbers are asked for
		return int64(v)
	}
	return value
}

func text(value any) string {
	out, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(out)
}
