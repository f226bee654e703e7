package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// dial connects to the cluster that the settings name.
func (a *app) dial(ctx context.Context) (*creto.Client, error) {
	s := &a.settings
	if len(s.addrs) == 0 {
		return nil, usageError(errors.New("no address"), "give --addr HOST:PORT, set CRETO_ADDR, or name a ready file with --ready",
			"`creto dev` starts a cluster on this machine")
	}
	if s.ca == "" {
		return nil, usageError(errors.New("no trust bundle"), "give --ca FILE or set CRETO_CA: whom to believe is not asked of the server")
	}
	token := s.token
	if s.tokenFile != "" && (token == "" || s.from["token_file"] == "--token-file") {
		b, err := readBounded(s.tokenFile, 4096)
		if err != nil {
			return nil, localError(fmt.Errorf("read token: %w", err))
		}
		token = strings.TrimSpace(string(b))
	}
	c, err := creto.Dial(ctx, creto.Options{Addrs: s.addrs, CA: s.ca, Cert: s.cert, Key: s.key, Token: token})
	if err != nil {
		return nil, localError(err)
	}
	return c, nil
}

// call runs fn with a connection, within --timeout.
func (a *app) call(ctx context.Context, fn func(ctx context.Context, c *creto.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.settings.timeout)
	defer cancel()
	return a.hold(ctx, fn)
}

// hold is call without a bound on time: for what waits for people, or for an interrupt.
func (a *app) hold(ctx context.Context, fn func(ctx context.Context, c *creto.Client) error) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(ctx, c)
}

// tenant returns the tenant that the settings name.
func (a *app) tenant() (nhi.ID, error) {
	if a.settings.tenant.IsZero() {
		if source := a.settings.from["tenant"]; source != "" {
			return nhi.ID{}, usageError(fmt.Errorf("%s: that is the system log, not a tenant's", source), "`creto ledger export --system` reads it")
		}
		return nhi.ID{}, usageError(errors.New("no tenant"), "give --tenant ID or set CRETO_TENANT")
	}
	return a.settings.tenant, nil
}

// tenantCall is call for what is about one tenant.
func (a *app) tenantCall(ctx context.Context, fn func(ctx context.Context, c *creto.Client, tenant []byte) error) error {
	t, err := a.tenant()
	if err != nil {
		return err
	}
	return a.call(ctx, func(ctx context.Context, c *creto.Client) error { return fn(ctx, c, t[:]) })
}

// role says who signs what a command sends, unless --as says otherwise.
type role int

const (
	byActor     role = iota // whoever acts: CRETO_AS
	byAuthority             // the tenant's authority, if CRETO_AUTHORITY names its key
	byAdmin                 // an admin, if CRETO_ADMIN names the key
)

// signer reads the key file of the identity that signs.
func (a *app) signer(ctx context.Context, by role) (keyfile.Key, *nhi.PrivateKey, error) {
	s := &a.settings
	path, variable := s.as, "CRETO_AS"
	if s.from["as"] != "--as" {
		switch {
		case by == byAuthority && s.authority != "":
			path = s.authority
		case by == byAdmin && s.admin != "":
			path = s.admin
		}
	}
	switch by {
	case byAuthority:
		variable = "CRETO_AUTHORITY"
	case byAdmin:
		variable = "CRETO_ADMIN"
	}
	if path == "" {
		return keyfile.Key{}, nil, usageError(errors.New("nobody to sign"), "give --as KEYFILE or set "+variable)
	}
	return a.readKey(ctx, path)
}

// readKey reads a key file, asking for its passphrase if it has one.
func (a *app) readKey(ctx context.Context, path string) (keyfile.Key, *nhi.PrivateKey, error) {
	k, _, err := keyfile.Read(path, func() (string, error) { return a.passphrase(ctx, "passphrase of "+path, false) })
	if err != nil {
		return k, nil, localError(fmt.Errorf("read key %s: %w", path, err))
	}
	key, err := k.Private()
	if err != nil {
		return k, nil, localError(fmt.Errorf("read key %s: %w", path, err))
	}
	return k, key, nil
}

// writeKey writes a new key file: under a passphrase, unless it shall lie in the open.
func (a *app) writeKey(ctx context.Context, path string, k keyfile.Key, plain bool) error {
	if _, err := os.Lstat(path); err == nil { // before anybody types a passphrase
		return localError(fmt.Errorf("write key %s: %w", path, fs.ErrExist))
	}
	if plain {
		if err := keyfile.WritePlain(path, k); err != nil {
			return localError(fmt.Errorf("write key: %w", err))
		}
		return nil
	}
	pass, err := a.passphrase(ctx, "new passphrase for "+path, true)
	if err != nil {
		return localError(err)
	}
	if err := keyfile.Write(path, pass, k); err != nil {
		return localError(fmt.Errorf("write key: %w", err))
	}
	return nil
}

// passphrase comes from the file that the settings name, or from whoever sits at the terminal. A new one is asked for twice.
func (a *app) passphrase(ctx context.Context, what string, twice bool) (string, error) {
	if f := a.settings.passphraseFile; f != "" {
		b, err := readBounded(f, 4096)
		if err != nil {
			return "", fmt.Errorf("read passphrase: %w", err)
		}
		line, _, _ := strings.Cut(string(b), "\n")
		return strings.TrimSuffix(line, "\r"), nil
	}
	in, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", &failure{code: exitLocal, err: fmt.Errorf("%s is needed, and there is no terminal to ask at", what),
			hints: []string{"put it into a file and name that with --passphrase-file or CRETO_PASSPHRASE_FILE"}}
	}
	p, err := a.ask(ctx, in, what+": ", true)
	if err != nil || !twice {
		return p, err
	}
	again, err := a.ask(ctx, in, "again: ", true)
	if err == nil && again != p {
		err = errors.New("the two passphrases differ")
	}
	return p, err
}

// actor says who acts in one command.
type actor struct {
	*creto.Agent
	key    keyfile.Key
	signer *nhi.PrivateKey
	client *creto.Client
	last   *held // the last event that its authority held back or flagged
}

// act connects as the identity that signs, in the tenant of its key file (or of --tenant).
func (a *app) act(ctx context.Context, by role, fn func(ctx context.Context, w *actor) error) error {
	k, signer, err := a.signer(ctx, by)
	if err != nil {
		return err
	}
	return a.call(ctx, func(ctx context.Context, c *creto.Client) error {
		w, err := a.actAs(ctx, c, k, signer)
		if err != nil {
			return err
		}
		return a.explainAuthority(ctx, w, fn(ctx, w))
	})
}

func (a *app) actAs(ctx context.Context, c *creto.Client, k keyfile.Key, signer *nhi.PrivateKey) (*actor, error) {
	tenant := k.Tenant
	if tenant.IsZero() && k.Role != "admin" && k.Role != "node" {
		tenant = a.settings.tenant
	}
	if !tenant.IsZero() && !a.settings.tenant.IsZero() && a.settings.tenant != tenant && strings.HasPrefix(a.settings.from["tenant"], "--tenant") {
		return nil, usageError(fmt.Errorf("the key belongs to tenant %s, not to %s", tenant, a.settings.tenant))
	}
	if k.Role == "agent" && a.settings.link.IsZero() {
		return nil, usageError(errors.New("an agent acts only under a delegation chain"), "name its last link with --link or CRETO_LINK; `creto delegation create` makes one")
	}
	link := a.settings.link
	if k.Role == "admin" || k.Role == "authority" {
		link = nhi.LinkID{}
	}
	w := &actor{key: k, signer: signer, client: c}
	agent, err := creto.Connect(ctx, creto.AgentConfig{
		Client: c, Signer: signer, ID: k.ID, Link: link, Account: a.settings.account, Tenant: tenant, Observe: w.observe,
	})
	if err != nil {
		return nil, err
	}
	w.Agent = agent
	return w, nil
}

// submitted is what became of one event. JSON names are a contract.
type submitted struct {
	State    string  `json:"state"`
	Index    count   `json:"index"`
	Outcome  string  `json:"outcome"`
	Flagged  string  `json:"flagged,omitempty"` // with accepted_flagged: what an ask would have got
	Time     instant `json:"time"`
	Quality  string  `json:"time_quality"`
	Height   string  `json:"height"`
	LeafHash string  `json:"leaf_hash"`
	Reason   string  `json:"reason,omitempty"`
}

func (s submitted) quietID() string { return s.Index.String() }

func submittedOf(r *creto.Result) submitted {
	return submitted{
		State: string(r.State), Index: count(r.Index), Outcome: r.Outcome.String(), Flagged: flagText(r.Flag), Time: instant(r.Time),
		Quality: r.Quality, Height: r.Height, LeafHash: hex.EncodeToString(r.LeafHash[:]), Reason: r.Reason,
	}
}

// do submits one event and prints what became of it.
func (a *app) do(ctx context.Context, by role, kind string, body []byte, opts ...creto.EventOption) error {
	return a.act(ctx, by, func(ctx context.Context, w *actor) error {
		r, err := w.Do(ctx, kind, body, opts...)
		if err != nil {
			return err
		}
		return a.object(submittedOf(r))
	})
}

// readView is as of when something was read. JSON names are a contract.
type readView struct {
	Linearizable bool    `json:"linearizable"`
	TreeSize     count   `json:"tree_size"`
	Time         instant `json:"time"`
	Quality      string  `json:"time_quality"`
	Node         string  `json:"node_id"`
}

func readOf(r *cretov1.ReadInfo) *readView {
	if r == nil {
		return nil
	}
	return &readView{r.GetLinearizable(), count(r.GetTreeSize()), instantNs(r.GetTimeNs()), r.GetTimeQuality(), r.GetNodeId()}
}

// sayRead says beside sums and balances, which are lists in every format, as of when they hold.
func (a *app) sayRead(r *cretov1.ReadInfo) {
	if r == nil || a.settings.quiet {
		return
	}
	how := "stale"
	if r.GetLinearizable() {
		how = "linearizable"
	}
	a.say("%s, as of size %d of the log and %s (%s)", how, r.GetTreeSize(), instantNs(r.GetTimeNs()), r.GetTimeQuality())
}

func newID() (nhi.ID, error) { return nhi.NewID(rand.Reader) }

func random16() (b [16]byte, err error) {
	_, err = io.ReadFull(rand.Reader, b[:])
	return b, err
}

// readText reads a text file, or stdin for "-", of at most max bytes.
func (a *app) readText(path string, max int64) ([]byte, error) {
	if path != "-" {
		return readBounded(path, max)
	}
	b, err := io.ReadAll(io.LimitReader(bufio.NewReader(a.in), max+1))
	if err == nil && int64(len(b)) > max {
		err = fmt.Errorf("stdin has more than %d bytes", max)
	}
	return b, err
}

// createFile writes a file that must not exist, readable by its owner only.
func createFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func idOf(b []byte) string {
	if len(b) != len(nhi.ID{}) || nhi.ID(b).IsZero() {
		return ""
	}
	return nhi.ID(b).String()
}

func hashOf(b []byte) string {
	if len(b) == 0 || len(strings.Trim(string(b), "\x00")) == 0 {
		return ""
	}
	return hexOf(b)
}
