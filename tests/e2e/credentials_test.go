package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/probe"
)

// The kinds of credentials that people and programs come with.
const (
	adminFile      = "admin.conf"
	adminOfSecret  = "the run's kubeconfig"
	csrCertificate = "CSR certificate"
	boundToken     = "bound token"
	legacyToken    = "legacy token"
	// With the trust that is published at each use: as pods do, and who reads a token's Secret again.
	tokenToday  = "bound token with today's kube-root-ca.crt"
	legacyToday = "legacy token with today's ca.crt of its Secret"
)

// stage is a part of a run. What is taken in one is used from then on.
type stage int

const (
	atStart  stage = iota // before the run and while it is refused
	inMiddle              // paused where both authorities are published and the old one signs
	onTheWay              // TrustingBoth to RestartingWorkloads
	atGate
	atEnd
	stages
)

var stageNames = [stages]string{"before", "in the middle", "on the way", "at the gate", "after"}

const paused = "a pause"

// stageOf is by phase; a pause counts as one. There is no DroppingOld: in it verdicts turn, each in its moment.
var stageOf = map[string]stage{"": atStart, "Preparing": atStart, paused: inMiddle, "TrustingBoth": onTheWay, "ReissuingLeaves": onTheWay,
	"PublishingNew": onTheWay, "RestartingWorkloads": onTheWay, "AwaitingApproval": atGate, "Completed": atEnd}

// verdict is what comes of a credential that is used as it was taken: client certificate or token, and trust.
type verdict string

const (
	works    verdict = "works"
	refused  verdict = "401"      // it recognizes the server, which refuses it
	stranger verdict = "stranger" // it does not recognize the server, which would accept it
	dead     verdict = "dead"     // neither
	absent   verdict = ""
)

// fate is what a credential holds that is taken at a stage, and what comes of it in each.
type fate struct {
	kind   string
	taken  stage
	issuer string // of the client certificate: the old authority (O) or the new one (N); "-": it comes with a token
	trusts string // whose servers it accepts; "*": what is published at each use
	then   [stages]verdict
}

// fates follows from design.md's facets: servers accept what O has issued, and present what who trusts O alone accepts (N's certificate with
// the bridge from O), until the drop and no longer; tokens are of neither.
var fates = []fate{
	{adminFile, atStart, "O", "O", [stages]verdict{works, works, works, works, dead}},
	{adminFile, inMiddle, "O", "O", [stages]verdict{absent, works, works, works, dead}},
	{adminFile, atGate, "N", "N", [stages]verdict{absent, absent, absent, works, works}},
	{adminFile, atEnd, "N", "N", [stages]verdict{absent, absent, absent, absent, works}},

	{adminOfSecret, atGate, "N", "O+N", [stages]verdict{absent, absent, absent, works, works}},
	{adminOfSecret, atEnd, "N", "N", [stages]verdict{absent, absent, absent, absent, works}},

	{csrCertificate, atStart, "O", "O", [stages]verdict{works, works, works, works, dead}},
	{csrCertificate, inMiddle, "O", "O+N", [stages]verdict{absent, works, works, works, refused}},
	{csrCertificate, atGate, "N", "N", [stages]verdict{absent, absent, absent, works, works}},
	{csrCertificate, atEnd, "N", "N", [stages]verdict{absent, absent, absent, absent, works}},

	{boundToken, atStart, "-", "O", [stages]verdict{works, works, works, works, stranger}},
	{boundToken, inMiddle, "-", "O+N", [stages]verdict{absent, works, works, works, works}},
	{boundToken, atGate, "-", "N", [stages]verdict{absent, absent, absent, works, works}},
	{boundToken, atEnd, "-", "N", [stages]verdict{absent, absent, absent, absent, works}},
	{tokenToday, atStart, "-", "*", [stages]verdict{works, works, works, works, works}},

	{legacyToken, atStart, "-", "O", [stages]verdict{works, works, works, works, stranger}},
	{legacyToken, inMiddle, "-", "O+N", [stages]verdict{absent, works, works, works, works}},
	{legacyToken, atGate, "-", "N", [stages]verdict{absent, absent, absent, works, works}},
	{legacyToken, atEnd, "-", "N", [stages]verdict{absent, absent, absent, absent, works}},
	{legacyToday, atStart, "-", "*", [stages]verdict{works, works, works, works, works}},
}

// leastUses is how often each credential must have been used in each stage.
const leastUses = 5

const legacySecret = "legacy-prober"

// A token of the kind that does not expire, for who may read what the probes read.
const legacyManifest = `apiVersion: v1
kind: Secret
metadata: {name: ` + legacySecret + `, namespace: certrotation-test, annotations: {kubernetes.io/service-account.name: prober}}
type: kubernetes.io/service-account-token
`

// wallet holds credentials, and uses each once a second from when it was taken, straight at the API server and in new connections.
type wallet struct {
	*rotation
	next   *x509.Certificate // the authority that comes; known in advance
	cards  []*card
	paused atomic.Bool
	using  context.Context
	under  sync.WaitGroup
	close  func()
}

// card is one credential.
type card struct {
	fate
	client probe.Client
	trust  func(context.Context) ([]byte, error) // read before each use; nil: the trust that was taken
	mu     sync.Mutex
	uses   []use
}

// use is one of a credential both ways: as it is, and with trust in both authorities.
type use struct {
	from, to string // the phase when it began, and when it had its result
	ended    time.Time
	asItIs   probe.Attempt
	trusting probe.Attempt
}

// recognizes reports whether its own trust accepts the server; accepted whether the server accepts its client certificate or token.
func (u *use) recognizes() bool { return u.asItIs.Kind != probe.Untrusted }
func (u *use) accepted() bool   { return u.trusting.Kind == probe.Served }

func (u *use) verdict() verdict {
	switch [2]probe.Kind{u.asItIs.Kind, u.trusting.Kind} {
	case [2]probe.Kind{probe.Served, probe.Served}:
		return works
	case [2]probe.Kind{probe.Unauthorized, probe.Unauthorized}:
		return refused
	case [2]probe.Kind{probe.Untrusted, probe.Served}:
		return stranger
	case [2]probe.Kind{probe.Untrusted, probe.Unauthorized}:
		return dead
	}
	return verdict(fmt.Sprintf("as it is %q, and with trust in both %q", u.asItIs.Error, u.trusting.Error))
}

func (u *use) String() string {
	return fmt.Sprintf("%s in %s: %s (%s)", u.ended.Format("15:04:05.000"), u.to, u.verdict(), u.asItIs.Server)
}

func newWallet(ctx context.Context, t *testing.T, r *rotation, next *x509.Certificate) *wallet {
	t.Helper()
	w := &wallet{rotation: r, next: next}
	var cancel context.CancelFunc
	w.using, cancel = context.WithCancel(ctx)
	w.close = func() { cancel(); w.under.Wait() }
	t.Cleanup(w.close)
	r.bed.apply(ctx, t, []byte(legacyManifest))
	r.bed.kubectl(ctx, t, "-n", fixture.Namespace, "wait", `--for=jsonpath={.data.token}`, "secret/"+legacySecret, "--timeout=60s")
	return w
}

// take gets one of each kind that there is at a stage, sees that it holds what it should, and uses it from now on.
func (w *wallet) take(ctx context.Context, t *testing.T, now stage) {
	t.Helper()
	taking, end := within(ctx, t, time.Minute)
	defer end()
	for _, f := range fates {
		if f.taken != now {
			continue
		}
		c := &card{fate: f}
		bundle := w.fill(taking, t, c)
		if issuer := w.issuer(c.client.Certificate); issuer != f.issuer {
			t.Errorf("%s: issued by %s, expected %s", c, issuer, f.issuer)
		}
		if trusts := w.trusted(t, bundle); f.trusts != "*" && trusts != f.trusts {
			t.Errorf("%s: trusts %s, expected %s", c, trusts, f.trusts)
		}
		w.cards = append(w.cards, c)
		w.under.Add(1)
		go func() { defer w.under.Done(); w.useAll(c) }()
	}
}

func (f fate) String() string {
	if f.trusts == "*" {
		return f.kind
	}
	return f.kind + " taken " + stageNames[f.taken]
}

// fill gives a credential what it holds; its trust is returned, too, as it was found.
func (w *wallet) fill(ctx context.Context, t *testing.T, c *card) []byte {
	t.Helper()
	sources := map[string]func(context.Context, *probe.Client) ([]byte, error){adminFile: w.fromAdminFile, adminOfSecret: w.fromAdminSecret,
		csrCertificate: w.fromCSR, boundToken: w.fromTokenRequest, tokenToday: w.fromTokenRequest, legacyToken: w.fromLegacy, legacyToday: w.fromLegacy}
	today := map[string]func(context.Context) ([]byte, error){tokenToday: w.published, legacyToday: w.legacyTrust}
	c.client = probe.Client{Address: w.bed.Servers[0], Path: fixture.Path}
	c.trust = today[c.kind]
	bundle, err := sources[c.kind](ctx, &c.client)
	if err == nil {
		c.client.Roots, err = pool(bundle)
	}
	if err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	return bundle
}

func pool(bundle []byte) (*x509.CertPool, error) {
	list, err := access.Certificates(bundle)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("a bundle without a certificate")
	}
	return access.Pool(list...), err
}

// fromKubeconfig takes the client certificate, and gives the trust.
func fromKubeconfig(text []byte, c *probe.Client) ([]byte, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(config.CertData, config.KeyData)
	c.Certificate = &pair
	return config.CAData, err
}

func (w *wallet) fromAdminFile(ctx context.Context, c *probe.Client) ([]byte, error) {
	for _, n := range w.bed.nodes {
		if n.Name == w.bed.controlPlanes()[0] {
			text, err := n.Run(ctx, "cat", "/etc/kubernetes/admin.conf")
			if err != nil {
				return nil, err
			}
			return fromKubeconfig(text, c)
		}
	}
	return nil, fmt.Errorf("there is no control plane")
}

func (w *wallet) fromAdminSecret(ctx context.Context, c *probe.Client) ([]byte, error) {
	secret, err := w.bed.Client.CoreV1().Secrets(systemNamespace).Get(ctx, adminSecret, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return fromKubeconfig(secret.Data["value"], c)
}

func (w *wallet) fromCSR(ctx context.Context, c *probe.Client) (bundle []byte, err error) {
	name := pkix.Name{CommonName: "certrotation-test:wallet", Organization: []string{"certrotation-test:probes"}}
	if c.Certificate, err = access.ClientCertificate(ctx, w.bed.Client, name, 12*time.Hour); err != nil {
		return nil, err
	}
	return w.published(ctx)
}

func (w *wallet) fromTokenRequest(ctx context.Context, c *probe.Client) (bundle []byte, err error) {
	if c.Token, err = access.Token(ctx, w.bed.Client, fixture.Namespace, "prober", 12*time.Hour); err != nil {
		return nil, err
	}
	return w.published(ctx)
}

func (w *wallet) fromLegacy(ctx context.Context, c *probe.Client) ([]byte, error) {
	secret, err := w.bed.Client.CoreV1().Secrets(fixture.Namespace).Get(ctx, legacySecret, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	c.Token = string(secret.Data["token"])
	return secret.Data["ca.crt"], nil
}

func (w *wallet) legacyTrust(ctx context.Context) ([]byte, error) {
	return w.fromLegacy(ctx, &probe.Client{})
}

// published is what every pod of a namespace is given.
func (w *wallet) published(ctx context.Context) ([]byte, error) {
	m, err := w.bed.Client.CoreV1().ConfigMaps(fixture.Namespace).Get(ctx, rootCA, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return []byte(m.Data["ca.crt"]), nil
}

func (w *wallet) issuer(c *tls.Certificate) string {
	switch {
	case c == nil:
		return "-"
	case c.Leaf.CheckSignatureFrom(w.old()) == nil:
		return "O"
	case c.Leaf.CheckSignatureFrom(w.next) == nil:
		return "N"
	}
	return c.Leaf.Issuer.String()
}

// trusted names the authorities of a bundle, in whatever order they are.
func (w *wallet) trusted(t *testing.T, bundle []byte) string {
	t.Helper()
	told := (&walker{old: w.old(), new: w.next}).tell(t, bundle)
	if told == "N+O" {
		return "O+N"
	}
	return told
}

// phase is that of this run: an object may still tell of the one before.
func (w *wallet) phase() string {
	if w.paused.Load() {
		return paused
	}
	versions := w.bed.recorder.Versions()
	if n := len(versions); n > 0 && (w.inRun(&versions[n-1]) || versions[n-1].Status.Phase == "Preparing") {
		return versions[n-1].Status.Phase
	}
	return ""
}

// useAll goes on until the wallet is closed; uses of one credential come one after the other.
func (w *wallet) useAll(c *card) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		w.once(c)
		select {
		case <-w.using.Done():
			return
		case <-ticker.C:
		}
	}
}

// once has a life of its own: the end does not cut it off.
func (w *wallet) once(c *card) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	u := use{from: w.phase()}
	own, both := c.client, c.client
	both.Roots = access.Pool(w.old(), w.next)
	var err error
	if c.trust != nil {
		own.Roots, err = poolOf(ctx, c.trust)
	}
	if err == nil {
		u.asItIs = own.Ask(ctx)
	} else {
		u.asItIs = probe.Attempt{Kind: probe.Other, Error: err.Error()}
	}
	u.trusting = both.Ask(ctx)
	u.ended, u.to = time.Now(), w.phase()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uses = append(c.uses, u)
}

func poolOf(ctx context.Context, read func(context.Context) ([]byte, error)) (*x509.CertPool, error) {
	bundle, err := read(ctx)
	if err != nil {
		return nil, err
	}
	return pool(bundle)
}

func (c *card) all() []use {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]use(nil), c.uses...)
}

// in are the uses that began and ended in a stage.
func (c *card) in(s stage) []use {
	var list []use
	for _, u := range c.all() {
		from, known := stageOf[u.from]
		to, still := stageOf[u.to]
		if known && still && from == s && to == s {
			list = append(list, u)
		}
	}
	return list
}

// awaitUses waits until each credential was used often enough in a stage.
func (w *wallet) awaitUses(ctx context.Context, t *testing.T, now stage) {
	t.Helper()
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		least := leastUses
		for _, c := range w.cards {
			least = min(least, len(c.in(now)))
		}
		if least >= leastUses {
			return
		}
		select {
		case <-waiting.Done():
			t.Fatalf("some credentials were used %d times %s; phase %q", least, stageNames[now], w.phase())
		case <-ticker.C:
		}
	}
}

// assertFates: every credential of the table was taken, and each had its fate.
func (w *wallet) assertFates(t *testing.T) {
	if len(w.cards) != len(fates) {
		t.Errorf("%d credentials were taken, of %d", len(w.cards), len(fates))
	}
	w.tellFates()
	for _, c := range w.cards {
		t.Run(c.String(), func(t *testing.T) {
			c.assertStages(t)
			c.assertTurnsOnce(t, w.dropped)
		})
	}
}

func (c *card) assertStages(t *testing.T) {
	for s := range stages {
		if c.then[s] == absent {
			continue
		}
		uses := c.in(s)
		if len(uses) < leastUses {
			t.Errorf("%s it was used %d times, which shows nothing; at least %d are expected", stageNames[s], len(uses), leastUses)
		}
		c.assertEach(t, uses, stageNames[s], c.then[s])
	}
}

func (c *card) assertEach(t *testing.T, uses []use, when string, want verdict) {
	t.Helper()
	var other []string
	for i := range uses {
		if uses[i].verdict() != want {
			other = append(other, uses[i].String())
		}
	}
	if len(other) > 0 {
		t.Errorf("%s, of %d uses %d were not %q:%s", when, len(uses), len(other), want, lines(other[:min(len(other), 5)]))
	}
}

// assertTurnsOnce: before the drop it works, whatever is told at that moment; once refused, or a stranger, it stays so; and nothing else goes
// wrong on the way there.
func (c *card) assertTurnsOnce(t *testing.T, dropped time.Time) {
	strange, gone := false, false
	for _, u := range c.all() {
		if u.recognizes() && strange || u.accepted() && gone {
			t.Errorf("it was refused before, and works again: %s", &u)
		}
		strange, gone = !u.recognizes(), !u.accepted()
		if u.ended.Before(dropped) && (strange || gone) {
			t.Errorf("before DroppingOld, which began at %s: %s", dropped.Format("15:04:05.000"), &u)
		}
		for _, a := range []probe.Attempt{u.asItIs, u.trusting} {
			if a.Kind != probe.Served && a.Kind != probe.Untrusted && a.Kind != probe.Unauthorized {
				t.Errorf("in %s: %s", u.to, probe.Tell([]probe.Attempt{a}))
			}
		}
	}
	if want := c.then[atEnd]; strange != (want == stranger || want == dead) || gone != (want == refused || want == dead) {
		t.Errorf("at last the server was a stranger: %v, and refused it: %v; expected %q", strange, gone, want)
	}
}

// tellFates prints how often each verdict was given in each stage.
func (w *wallet) tellFates() {
	for _, c := range w.cards {
		var cells []string
		for s := range stages {
			count := map[verdict]int{}
			uses := c.in(s)
			for i := range uses {
				count[uses[i].verdict()]++
			}
			var told []string
			for v, n := range count {
				told = append(told, fmt.Sprintf("%d %s", n, v))
			}
			cells = append(cells, strings.Join(told, ", "))
		}
		say("%-46s %s", c, strings.Join(cells, " | "))
	}
}
