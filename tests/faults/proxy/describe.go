package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"certrotation.dev/tests/faults/fault"
)

// describe says what a request is.
func (x *exchange) describe() {
	e, r := &x.entry, x.r
	e.Pod, e.Object, e.Verb = podOf(bearer(r)), r.URL.Path, r.Method
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		e.Class = fault.Write
		x.describeBody()
	case r.URL.Query().Get("watch") == "true":
		e.Class, e.Verb = fault.Stream, "WATCH"
	case r.URL.Query().Has("limit"):
		e.Class, e.Verb = fault.List, "LIST"
	default:
		e.Class = fault.Read
	}
}

// describeBody names what is made, and what of it the harness judges by.
func (x *exchange) describeBody() {
	var object struct {
		Metadata struct {
			Name        string            `json:"name"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}
	if json.Unmarshal(x.body, &object) != nil || x.r.Method != http.MethodPost {
		return
	}
	x.entry.Object += "/" + object.Metadata.Name
	x.entry.Note = object.Metadata.Annotations["certrotation.dev/step"]
	if object.Reason != "" {
		x.entry.Note = object.Reason + ": " + object.Message
	}
}

// version tells one content of the object in an answer from the next: of a workload its generation, for others write its status all the
// time; of anything else its resourceVersion.
func version(path string, body []byte) string {
	var object struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
			Generation      int64  `json:"generation"`
		} `json:"metadata"`
	}
	if json.Unmarshal(body, &object) != nil {
		return ""
	}
	if object.Metadata.Generation > 0 && strings.HasPrefix(path, "/apis/apps/") {
		return fmt.Sprintf("generation %d", object.Metadata.Generation)
	}
	return object.Metadata.ResourceVersion
}

// podOf reads from a bound token to which Pod it was given. It proves nothing and need not: the API server does.
func podOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var who struct {
		Kubernetes struct {
			Pod struct {
				Name string `json:"name"`
			} `json:"pod"`
		} `json:"kubernetes.io"`
	}
	if json.Unmarshal(claims, &who) != nil {
		return ""
	}
	return who.Kubernetes.Pod.Name
}
