package main

import "github.com/spf13/cobra"

// addCommands adds what talks to a cluster, or is one.
func (a *app) addCommands(func(group string, list ...*cobra.Command)) {}
