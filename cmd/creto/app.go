package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// app is one run of the program: everything it may touch is here, so that a test can run it whole.
type app struct {
	args    []string
	in      io.Reader
	out     io.Writer
	err     io.Writer
	getenv  func(string) string
	environ func() []string

	settings settings
}

// Groups of commands, as the help lists them.
const (
	groupRun    = "run"
	groupPeople = "identity"
	groupWork   = "work"
	groupProof  = "proof"
	groupSelf   = "self"
)

// run executes the command line and returns the exit code.
func (a *app) run(ctx context.Context) int {
	root := a.root()
	root.SetArgs(a.args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	f := explain(err)
	if h := a.settings.hintOfLink(err); h != "" {
		f.hints = append(f.hints, h)
	}
	if interrupted(ctx, err) {
		f = &failure{code: exitLocal, err: errors.New("interrupted"), silent: f.silent}
	}
	if f.silent {
		return f.code
	}
	a.say("creto: %s", f.text())
	for _, h := range f.hints {
		a.say("  hint: %s", h)
	}
	if f.usage && cmd != nil {
		a.say("  hint: see `%s --help`", cmd.CommandPath())
	}
	return f.code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "creto",
		Short: "A ledger for AI agents that somebody has to answer for",
		Long: `Creto orders the signed usage, approval and attestation events of AI agents into a log that anybody can verify offline.

Start with a cluster on this machine:

  creto dev --ready dev.json             # in one shell; it prints what to try
  eval "$(creto env --ready dev.json)"   # in another
  creto event list

Exit codes: ` + exitSummary(),
		Version:       buildVersion().Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			return a.settings.resolve(c, a.getenv)
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run a cluster:"},
		&cobra.Group{ID: groupPeople, Title: "Who acts, and for whom:"},
		&cobra.Group{ID: groupWork, Title: "What they do:"},
		&cobra.Group{ID: groupProof, Title: "Prove and verify:"},
		&cobra.Group{ID: groupSelf, Title: "This program:"},
	)
	a.settings.flags(root)
	add := func(group string, list ...*cobra.Command) {
		for _, c := range list {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupProof, a.verifyCmd())
	add(groupSelf, a.versionCmd(), a.completionCmd())
	a.addCommands(add)
	root.SetHelpCommandGroupID(groupSelf)
	return root
}

// flagError says what is wrong with a flag, in the words of whoever typed it.
func flagError(_ *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if s := e.GetSpecifiedShortnames(); s != "" && strings.Trim(s, "0123456789_.") == "" {
			return usageError(fmt.Errorf("-%s: a number here cannot begin with \"-\"", s))
		}
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		want := ""
		switch t := e.GetFlag().Value.Type(); {
		case errors.Is(err, strconv.ErrRange):
			want = "within the bounds of this flag"
		case t == "duration":
			want = "a duration, such as 90s or 24h"
		case strings.HasPrefix(t, "uint"):
			want = "a whole number"
		case strings.HasPrefix(t, "int"):
			want = "a number"
		case t == "bool":
			want = "true or false"
		}
		if want != "" {
			return usageError(fmt.Errorf("--%s: %q is not %s", e.GetFlag().Name, e.GetValue(), want))
		}
	}
	return usageError(err)
}

// say writes one line of talk.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.err, visible(fmt.Sprintf(format, args...)))
}

// terminal reports whether w is one.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// noun is a command that only groups its verbs.
func noun(name, short, long string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: name + " COMMAND", Short: short, Long: long, Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(verbs...)
	return c
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !c.HasSubCommands() {
		return usageError(fmt.Errorf("%q is too much: the command takes no arguments, only flags", args[0]))
	}
	err := fmt.Errorf("unknown command %q", args[0])
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return usageError(err, "did you mean "+strings.Join(near, " or ")+"?")
	}
	return usageError(err)
}

// exactly checks the number of arguments and names those that are missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usageError(fmt.Errorf("missing argument: %s", strings.Join(names[len(args):], " ")))
		}
		if len(args) > len(names) {
			return usageError(fmt.Errorf("one argument too many: %q", args[len(names)]))
		}
		return nil
	}
}

// atLeast checks that there is at least one argument of a name.
func atLeast(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError(errors.New("missing argument: " + name))
		}
		return nil
	}
}
