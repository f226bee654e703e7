package main

import "github.com/spf13/cobra"

// addCommands adds what talks to a cluster, or is one.
func (a *app) addCommands(add func(group string, list ...*cobra.Command)) {
	add(groupPeople, a.tenantCmd(), a.identityCmd(), a.delegationCmd(), a.tokenCmd())
	add(groupSelf, a.configCmd(), a.envCmd())
	add(groupWork, a.eventCmd(), a.accountCmd(), a.quotaCmd(), a.usageCmd(), a.policyCmd(), a.approvalCmd(), a.sandboxCmd())
	add(groupProof, a.ledgerCmd())
	add(groupRun, a.loadCmd())
	add(groupRun, a.devCmd(), a.serverCmd(), a.initCmd(), a.clusterCmd(), a.sandboxNodeCmd(), newDemoCmd())
}
