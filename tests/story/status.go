package story

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Phases in the order in which users see them.
var Phases = []string{"Preparing", "TrustingBoth", "ReissuingLeaves", "PublishingNew", "RestartingWorkloads", "AwaitingApproval", "DroppingOld", "Completed", "RollingBack", "RolledBack", "Planned"}

// Progress is how many of a kind are done.
type Progress struct {
	Kind       string   `json:"kind"`
	Done       int64    `json:"done"`
	Total      int64    `json:"total"`
	WaitingFor []string `json:"waitingFor"`
}

// Blocker is what must be dealt with.
type Blocker struct {
	Code    string `json:"code"`
	Object  string `json:"object"`
	Message string `json:"message"`
}

// Status is the part of status that the tests read.
type Status struct {
	ObservedGeneration int64              `json:"observedGeneration"`
	Phase              string             `json:"phase"`
	ProgressSummary    string             `json:"progressSummary"`
	WaitingFor         string             `json:"waitingFor"`
	NextStep           string             `json:"nextStep"`
	Conditions         []metav1.Condition `json:"conditions"`
	Run                struct {
		Trigger  string    `json:"trigger"`
		ID       string    `json:"id"`
		Started  time.Time `json:"startedAt"`
		Deadline time.Time `json:"deadline"`
	} `json:"run"`
	Authorities []struct {
		Name    string      `json:"name"`
		Current Certificate `json:"current"`
		Next    Certificate `json:"next"`
	} `json:"authorities"`
	AdminKubeconfig struct {
		SecretRef struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"secretRef"`
		ClientCertificateFingerprint string   `json:"clientCertificateFingerprint"`
		Authorities                  []string `json:"authorities"`
	} `json:"adminKubeconfig"`
	Progress           []Progress `json:"progress"`
	Blockers           []Blocker  `json:"blockers"`
	Plan               Plan       `json:"plan"`
	AcceptedStragglers []string   `json:"acceptedStragglers"`
	History            []struct {
		Trigger string `json:"trigger"`
		Result  string `json:"result"`
	} `json:"history"`
}

// Plan is what a run would do.
type Plan struct {
	Trigger            string      `json:"trigger"`
	ObservedGeneration int64       `json:"observedGeneration"`
	MadeAt             string      `json:"madeAt"`
	Authority          string      `json:"authority"`
	Summary            string      `json:"summary"`
	EstimatedSeconds   int64       `json:"estimatedSeconds"`
	APIAwaySeconds     int64       `json:"apiAwaySeconds"`
	Phases             []PlanPhase `json:"phases"`
	BlockersTotal      int64       `json:"blockersTotal"`
}

// PlanPhase is the part of one phase.
type PlanPhase struct {
	Phase            string   `json:"phase"`
	EstimatedSeconds int64    `json:"estimatedSeconds"`
	APIAwaySeconds   int64    `json:"apiAwaySeconds"`
	SessionCuts      int64    `json:"sessionCuts"`
	Notes            []string `json:"notes"`
	Restarts         []struct {
		Component  string   `json:"component"`
		Nodes      []string `json:"nodes"`
		NodesTotal int64    `json:"nodesTotal"`
	} `json:"restarts"`
	Workloads struct {
		Rolled        []Workload `json:"rolled"`
		RolledTotal   int64      `json:"rolledTotal"`
		RolledPods    int64      `json:"rolledPods"`
		ByPerson      []Workload `json:"byPerson"`
		ByPersonTotal int64      `json:"byPersonTotal"`
		ByPersonPods  int64      `json:"byPersonPods"`
		PodsTotal     int64      `json:"podsTotal"`
		PodsUnlisted  int64      `json:"podsUnlisted"`
	} `json:"workloads"`
	CABundles struct {
		Moved         []string   `json:"moved"`
		MovedTotal    int64      `json:"movedTotal"`
		ByPerson      []Workload `json:"byPerson"`
		ByPersonTotal int64      `json:"byPersonTotal"`
	} `json:"caBundles"`
	StopsWorking struct {
		Certificates []struct {
			Request  string    `json:"request"`
			Subject  string    `json:"subject"`
			NotAfter time.Time `json:"notAfter"`
		} `json:"certificates"`
		CertificatesTotal int64 `json:"certificatesTotal"`
		Copies            []struct {
			Object  string   `json:"object"`
			Key     string   `json:"key"`
			Holds   []string `json:"holds"`
			Subject string   `json:"subject"`
		} `json:"copies"`
		CopiesTotal int64  `json:"copiesTotal"`
		Unknown     string `json:"unknown"`
	} `json:"stopsWorking"`
}

// Workload is an owner of pods.
type Workload struct {
	Name   string `json:"name"`
	Pods   int64  `json:"pods"`
	Reason string `json:"reason"`
}

// Phase gives the part of a phase; an empty one where there is none.
func (p *Plan) Phase(name string) *PlanPhase {
	for i := range p.Phases {
		if p.Phases[i].Phase == name {
			return &p.Phases[i]
		}
	}
	return &PlanPhase{}
}

// Certificate is how status tells of an authority.
type Certificate struct {
	Fingerprint string    `json:"fingerprint"`
	Subject     string    `json:"subject"`
	NotAfter    time.Time `json:"notAfter"`
}

// Version is one version of the resource.
type Version struct {
	At              time.Time
	ResourceVersion string
	Generation      int64
	Trigger         string // spec.trigger
	Status          Status
	Raw             string // status as it was sent, in JSON
}

func readVersion(object *unstructured.Unstructured) (Version, error) {
	v := Version{At: time.Now(), ResourceVersion: object.GetResourceVersion(), Generation: object.GetGeneration()}
	v.Trigger, _, _ = unstructured.NestedString(object.Object, "spec", "trigger")
	status, _, err := unstructured.NestedMap(object.Object, "status")
	if err != nil {
		return v, err
	}
	raw, err := json.Marshal(status)
	if err != nil {
		return v, err
	}
	v.Raw = string(raw)
	return v, runtime.DefaultUnstructuredConverter.FromUnstructured(status, &v.Status)
}

// Condition gives the condition of a type, or nil.
func (s *Status) Condition(kind string) *metav1.Condition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == kind {
			return &s.Conditions[i]
		}
	}
	return nil
}

// Is reports whether a condition is there and True.
func (s *Status) Is(kind string) bool {
	c := s.Condition(kind)
	return c != nil && c.Status == metav1.ConditionTrue
}

// Done reports whether the run with that trigger is complete by the word of status.
func (v *Version) Done(trigger string) bool {
	return v.Status.Phase == "Completed" && v.Status.Run.Trigger == trigger && v.Status.Is("Ready") && v.Status.ObservedGeneration == v.Generation
}

// WaitsFor reports whether status names the thing among what the run waits for.
func (s *Status) WaitsFor(name string) bool {
	for _, p := range s.Progress {
		for _, waiting := range p.WaitingFor {
			if names(waiting, name) {
				return true
			}
		}
	}
	for _, b := range s.Blockers {
		if names(b.Object, name) || names(b.Message, name) {
			return true
		}
	}
	return names(s.WaitingFor, name)
}

// names reports whether text holds the name as a whole word: Pod/a/b is not in Pod/a/bc.
func names(text, name string) bool {
	for rest := text; ; {
		i := strings.Index(rest, name)
		if i < 0 {
			return false
		}
		rest = rest[i+len(name):]
		if rest == "" || !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-.", rune(rest[0])) || rest[0] == '.' && (len(rest) == 1 || rest[1] == ' ') {
			return true
		}
	}
}

// Tell says where the run stands, in one line.
func (s *Status) Tell() string {
	var list []string
	for _, c := range s.Conditions {
		list = append(list, fmt.Sprintf("%s=%s(%s)", c.Type, c.Status, c.Reason))
	}
	return fmt.Sprintf("phase %s, %s; waiting for %q; %s", s.Phase, s.ProgressSummary, s.WaitingFor, strings.Join(list, " "))
}
