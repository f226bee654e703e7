package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo says which program this is. JSON names are a contract.
type versionInfo struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	Time      string `json:"time"`
	Modified  bool   `json:"modified"`
	Go        string `json:"go"`
	Platform  string `json:"platform"`
	LeafLevel uint32 `json:"feature_level"`
}

func (v versionInfo) quietID() string { return v.Version }

// featureLevel is the highest level of ledger features that this program supports.
const featureLevel = 1

func buildVersion() versionInfo {
	v := versionInfo{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, LeafLevel: featureLevel}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if m := info.Main.Version; m != "" && m != "(devel)" {
		v.Version = m
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which program this is", Args: noArgs,
		Example:     "  creto version\n  creto version -o json",
		Annotations: map[string]string{localOnly: "1"},
		RunE:        func(*cobra.Command, []string) error { return a.object(buildVersion()) },
	}
}

func (a *app) completionCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a completion script for a shell",
		Example:     "  source <(creto completion bash)\n  creto completion zsh > \"${fpath[1]}/_creto\"\n  creto completion fish | source",
		Args:        exactly("SHELL"),
		ValidArgs:   []string{"bash", "zsh", "fish", "powershell"},
		Annotations: map[string]string{localOnly: "1"},
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		root := c.Root()
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(a.out, true)
		case "zsh":
			return root.GenZshCompletion(a.out)
		case "fish":
			return root.GenFishCompletion(a.out, true)
		case "powershell":
			return root.GenPowerShellCompletionWithDesc(a.out)
		}
		return usageError(fmt.Errorf("no completion for shell %q", args[0]), "bash, zsh, fish or powershell")
	}
	return c
}
