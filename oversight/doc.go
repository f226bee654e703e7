// Package oversight takes an action from a policy that wants it approved to a used approval: published policies, requests,
// votes, quorum, deadlines, grants, claims and reports, as handlers of the ledger and as queries over its state.
//
// The two calls most programs need are [New], whose [Oversight.Kinds] the server gives to the ledger, and
// [Oversight.RegisterService], which answers queries over gRPC. The edge asks [Oversight.AuthzRequest] what to judge about
// an event of this package, and [CurrentPolicy] which policy to judge it by. Clients build bodies with oversight/kind.
//
// Invariants, true at every index:
//
//   - Only a policy, or a delegation link, says that people are needed, who they are and by when; never the requester.
//   - What they decide about never changes under them: action, view, policy, chains, eligible humans and quorum are frozen
//     when the request is opened, under the one digest that every vote signs.
//   - One human fills one seat, with a key of their own. Nobody in the requester's delegation chain fills any. No quorum is
//     reached by silence, by an empty set or by a deadline.
//   - A vote at or after its deadline changes nothing, whether the expiry is in the log yet or not. Final states stay.
//   - A grant is claimed at most once, by the key that asked for exactly this action, while the policies it satisfied are
//     still the same, its approvers are still active and its reservations fit, all in one step.
//
// It does not evaluate Cedar (the edge does, with nhi/authz), verify signatures (the ledger does), count quotas (a
// Reserver does), send notifications or run the action.
package oversight
