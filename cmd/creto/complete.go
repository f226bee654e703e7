package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// completionTimeout bounds what a shell waits for.
const completionTimeout = 2 * time.Second

// completeFirst completes the first argument with ids that the cluster knows. Whatever goes wrong completes nothing: a shell
// has no place for errors.
func (a *app) completeFirst(c *cobra.Command, fetch func(ctx context.Context, cl *creto.Client, tenant []byte) ([]cobra.Completion, error)) *cobra.Command {
	c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 || a.settings.resolve(c, a.getenv) != nil || a.settings.tenant.IsZero() {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completionTimeout)
		defer cancel()
		var out []cobra.Completion
		_ = a.hold(ctx, func(ctx context.Context, cl *creto.Client) (err error) {
			out, err = fetch(ctx, cl, a.settings.tenant[:])
			return err
		})
		return out, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

func completeIdentities(ctx context.Context, cl *creto.Client, tenant []byte) ([]cobra.Completion, error) {
	r, err := cretov1.NewIdentityServiceClient(cl).ListIdentities(ctx, &cretov1.ListIdentitiesRequest{Tenant: tenant, PageSize: 100})
	if err != nil {
		return nil, err
	}
	return mapped(r.GetIdentities(), func(p *cretov1.Identity) cobra.Completion {
		return cobra.CompletionWithDesc(idOf(p.GetId()), p.GetType()+", "+p.GetStatus())
	}), nil
}

func completeAccounts(ctx context.Context, cl *creto.Client, tenant []byte) ([]cobra.Completion, error) {
	r, err := cretov1.NewMeterServiceClient(cl).ListAccounts(ctx, &cretov1.ListAccountsRequest{Tenant: tenant, PageSize: 100})
	if err != nil {
		return nil, err
	}
	return mapped(r.GetAccounts(), func(p *cretov1.Account) cobra.Completion {
		return cobra.CompletionWithDesc(idOf(p.GetId()), p.GetType())
	}), nil
}

// completeApprovals lists requests in one state; "" is any.
func completeApprovals(state string) func(ctx context.Context, cl *creto.Client, tenant []byte) ([]cobra.Completion, error) {
	return func(ctx context.Context, cl *creto.Client, tenant []byte) ([]cobra.Completion, error) {
		r, err := cretov1.NewOversightServiceClient(cl).ListApprovals(ctx, &cretov1.ListApprovalsRequest{Tenant: tenant, State: state, PageSize: 50})
		if err != nil {
			return nil, err
		}
		return mapped(r.GetApprovals(), func(p *cretov1.Approval) cobra.Completion {
			return cobra.CompletionWithDesc(strconv.FormatUint(p.GetRequestId(), 10), p.GetOperation()+" "+p.GetResource()+", "+p.GetState())
		}), nil
	}
}

func completeSandboxes(ctx context.Context, cl *creto.Client, tenant []byte) ([]cobra.Completion, error) {
	r, err := cretov1.NewSandboxServiceClient(cl).ListSandboxes(ctx, &cretov1.ListSandboxesRequest{Tenant: tenant, PageSize: 50})
	if err != nil {
		return nil, err
	}
	return mapped(r.GetSandboxes(), func(p *cretov1.Sandbox) cobra.Completion {
		return cobra.CompletionWithDesc(strconv.FormatUint(p.GetClaim(), 10), p.GetTemplate()+", "+p.GetState())
	}), nil
}
