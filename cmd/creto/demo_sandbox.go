package main

import (
	"context"
	"crypto/rand"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	sandbox "github.com/creto-systems/creto/sandbox/kind"
)

// demoRun is a run in a sandbox.
type demoRun struct {
	agent     *demoProcess // the sandbox node
	reportLog uint64       // index of the report; 0 = nothing ran
}

// helloProgram is the one static program of the demonstration's root file system. It stands beside creto, or is built from
// sandbox/hello.
const helloProgram = "creto-hello"

// runSandbox runs one command for the coder in a sandbox of a node of its own process.
func (d *demo) runSandbox(ctx context.Context) (string, error) {
	if d.noSandbox {
		return leftOut + "as asked (--no-sandbox)", nil
	}
	if _, err := exec.LookPath("bwrap"); err != nil {
		if _, err := exec.LookPath("runc"); err != nil {
			const hint = "neither bubblewrap nor runc is here; install one: apt-get install bubblewrap"
			if d.ci {
				return "", errors.New(hint)
			}
			return leftOut + hint, nil
		}
	}
	rootfs := filepath.Join(d.dir, "rootfs")
	if err := d.makeRootfs(ctx, rootfs); err != nil {
		return "", err
	}
	if err := d.joinSandboxNode(ctx, rootfs); err != nil {
		return "", err
	}
	coder := d.people.agents[0]
	claim := &sandbox.ClaimBody{
		Template: "hello", Command: []string{"/hello", "from=demo"}, Class: sandbox.Process,
		Limits: sandbox.Limits{Wall: int64(10 * time.Second), Memory: 256 << 20}, TTL: int64(2 * time.Minute),
	}
	// Until the node has registered its template the claim waits for it.
	r, err := demoDo(ctx, coder.Agent, sandbox.Claim, claim)
	if err != nil {
		return "", err
	}
	claimed, err := sandbox.DecodeClaimed(r.Detail)
	if err != nil {
		return "", err
	}
	s, err := d.awaitSandbox(ctx, claimed.Claim)
	if err != nil {
		return "", err
	}
	if s.GetState() != "finished" || s.GetExitCode() != 0 {
		return "", fmt.Errorf("the run is %s with exit code %d, want finished with 0", s.GetState(), s.GetExitCode())
	}
	run, _, err := checkRun(ctx, d.client, d.people.tenant[:], s)
	if err != nil {
		return "", err
	}
	d.run.reportLog = s.GetReportIndex()
	used := make(map[string]uint64)
	for _, q := range s.GetUsage() {
		used[q.GetMeter()] = q.GetN()
	}
	return fmt.Sprintf("a command ran under %s %s, class %s, for the coder: exit code 0, output %x…\n"+
		"its node's statement verifies under the key that the ledger has for it: claim, agent, chain, file system %x…, command, output\n"+
		"metered from %s: %s of CPU, %s at the clock, %d KiB at the peak",
		run.Backend, run.BackendVersion, run.Isolation, run.Output[:4], run.Rootfs[:4], s.GetMeasuredFrom(),
		time.Duration(used[sandbox.MeterCPU]).Round(time.Millisecond), time.Duration(used[sandbox.MeterWall]).Round(time.Millisecond), //nolint:gosec // bounded by the limits
		used[sandbox.MeterMemory]>>10), nil
}

// makeRootfs puts one static program into an otherwise empty root file system.
func (d *demo) makeRootfs(ctx context.Context, rootfs string) error {
	if err := os.Mkdir(rootfs, 0o755); err != nil { //nolint:gosec // read by the sandbox's user
		return err
	}
	target := filepath.Join(rootfs, "hello")
	if built := filepath.Join(filepath.Dir(d.program), helloProgram); isStatic(built) {
		return copyProgram(target, built)
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", target, "github.com/creto-systems/creto/sandbox/hello") //nolint:gosec // fixed
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the sandbox's program: %w: %s (make demo builds it beside creto; otherwise this runs where the repository is)", err, out)
	}
	return nil
}

// isStatic reports whether a file is a program that needs no loader.
func isStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

func copyProgram(target, source string) (err error) {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755) //nolint:gosec // run by the sandbox's user
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// joinSandboxNode admits a node by a single-use token and starts its process.
func (d *demo) joinSandboxNode(ctx context.Context, rootfs string) error {
	c := d.cluster
	token, digest, err := node.NewJoinToken(rand.Reader)
	if err != nil {
		return err
	}
	admin, err := d.adminAgent()
	if err != nil {
		return err
	}
	body := &ledger.JoinTokenBody{Token: digest, Role: registry.RoleSandbox, Expires: time.Now().Add(5 * time.Minute).UnixNano()}
	if _, err := demoDo(ctx, admin, ledger.KindJoinTokenAdd, body); err != nil {
		return err
	}
	bundle, err := os.ReadFile(c.made.AdminSVID.Bundle)
	if err != nil {
		return err
	}
	dir := filepath.Join(d.dir, "sandbox-node")
	if _, err := node.JoinCluster(ctx, node.JoinConfig{Addr: c.grpc[0], Token: token, Bundle: bundle, Role: "sandbox", Dir: dir}); err != nil {
		return err
	}
	d.run.agent, err = startProcess(d.program, filepath.Join(d.dir, "logs", "sandbox-node.log"), sandboxArgs(dir, d, rootfs)...)
	return err
}

// sandboxArgs are the arguments that start a sandbox node from its directory.
func sandboxArgs(dir string, d *demo, rootfs string) []string {
	return []string{"sandbox-node", "--dir", dir, "--tenant", d.people.tenant.String(), "--template", "hello=" + rootfs}
}

// awaitSandbox waits until a claim has come to its end, or the node's process to its own.
func (d *demo) awaitSandbox(ctx context.Context, claim uint64) (s *cretov1.Sandbox, err error) {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	rpc := cretov1.NewSandboxServiceClient(d.client)
	err = d.run.agent.until(ctx, "the run has reported", func(ctx context.Context) (bool, error) {
		r, err := rpc.AwaitSandbox(ctx, &cretov1.GetSandboxRequest{Tenant: d.people.tenant[:], Claim: claim, TimeoutMs: 2000})
		if err != nil {
			return false, err
		}
		s = r.GetSandbox()
		switch s.GetState() {
		case "finished", "failed", "killed", "expired":
			return true, nil
		}
		return false, nil
	})
	return s, err
}
