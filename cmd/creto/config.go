package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// valueView is one setting and where its value came from.
type valueView struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"`
	Env    string `json:"env"`
}

func (v valueView) quietID() string { return v.Name }

func (a *app) configCmd() *cobra.Command {
	const which = `Without FILE it is about the client's configuration (--config, or creto/config.yaml in the user's configuration folder); with
FILE about a node's (node.yaml). Environment and flags are taken into account.`
	check := &cobra.Command{
		Use: "check [FILE]", Short: "Check a configuration, reporting everything that is wrong",
		Long:        "Check a configuration, reporting everything that is wrong. Unknown keys are errors.\n\n" + which,
		Example:     "  creto config check\n  creto config check /var/lib/creto/node.yaml",
		Args:        optionalFile,
		Annotations: map[string]string{},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				if _, _, err := a.nodeConfig(c, args[0]); err != nil {
					return err
				}
				a.say("%s is in order", args[0])
				return nil
			}
			if a.settings.configFile == "" {
				a.say("there is no configuration file; environment and flags are in order")
				return nil
			}
			a.say("%s is in order", a.settings.configFile) // resolve has read it
			return nil
		},
	}
	show := &cobra.Command{
		Use: "print [FILE]", Short: "Print every setting, and where its value came from",
		Long:    "Print every setting, and where its value came from.\n\n" + which,
		Example: "  creto config print\n  creto config print /var/lib/creto/node.yaml -o json",
		Args:    optionalFile,
		RunE: func(c *cobra.Command, args []string) error {
			var rows []valueView
			if len(args) == 1 {
				cfg, sources, err := a.nodeConfig(c, args[0])
				if cfg == nil {
					return err
				}
				for _, s := range nodeSettings {
					rows = append(rows, valueView{s.name, s.get(cfg), sources[s.name], s.env})
				}
				return errors.Join(list(a, rows), err)
			}
			for _, t := range settingTable {
				v := valueView{t.name, a.settings.values[t.name], a.settings.from[t.name], t.env}
				if v.Source == "" {
					v.Source = "unset"
				}
				if t.secret && v.Value != "" {
					v.Value = "(set, not shown)"
				}
				rows = append(rows, v)
			}
			return list(a, rows)
		},
	}
	return noun("config", "Check and print the configuration", "", check, show)
}

func optionalFile(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usageError(fmt.Errorf("one argument too many: %q", args[1]))
	}
	return nil
}

// envNames are the variables that `creto env` prints, in order.
var envNames = []string{"addr", "ca", "cert", "key", "token", "tenant", "trust", "authority", "admin"}

func (a *app) envCmd() *cobra.Command {
	var shell string
	c := &cobra.Command{
		Use: "env", Short: "Print what a shell needs to reach a development cluster",
		Long: `Print the export lines of a development cluster's ready file: addresses, certificates, the tenant and its read token, the trust
file, and the key files of its authority and admin.`,
		Example: `  eval "$(creto env --ready dev.json)"
  creto env --ready dev.json --shell fish | source`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.settings.ready == nil {
				return usageError(errors.New("no ready file"), "name it with --ready FILE: the one that `creto dev` has printed")
			}
			values := readySettings(a.settings.ready)
			var format func(name, value string) string
			switch shell {
			case "sh":
				format = func(n, v string) string { return "export " + n + "=" + shellQuote(v) }
			case "fish":
				format = func(n, v string) string { return "set -gx " + n + " " + shellQuote(v) }
			case "powershell":
				format = func(n, v string) string { return "$env:" + n + " = '" + strings.ReplaceAll(v, "'", "''") + "'" }
			default:
				return usageError(fmt.Errorf("--shell %q is not sh, fish or powershell", shell))
			}
			for _, name := range envNames {
				for _, t := range settingTable {
					if t.name == name && values[name] != "" {
						fmt.Fprintln(a.out, format(t.env, values[name]))
					}
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&shell, "shell", "sh", "sh, fish or powershell")
	return c
}

// shellQuote quotes a word for a POSIX shell, where it needs to be.
func shellQuote(s string) string {
	safe := s != ""
	for _, r := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,@%+=", r) {
			safe = false
		}
	}
	if safe {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
