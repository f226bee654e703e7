// Package authz answers whether an identity may do something: it compiles a
// tenant's Cedar policies and evaluates requests against them.
//
// The two calls you need are [Compile], which checks a published [Bundle] and
// returns an immutable [Engine], and [Engine.Decide], which answers one
// [Request] with Deny, Allow or NeedsOversight.
//
// A bundle has two physical sets. The hard set holds permits and plain
// forbids; it alone decides whether something is allowed. The soft set holds
// only forbids annotated with the name of an oversight chain; a match does
// not refuse, it says that people of that chain must approve first.
//
// What always holds:
//   - Any evaluation error is Deny. Stock Cedar skips a forbid that errs.
//   - An approval satisfies a soft forbid. It never adds a permit and never
//     beats a hard forbid.
//   - A guard of a delegation link can only forbid, so adding guards never
//     allows more.
//   - Entities are built here from the verified request; no caller supplies
//     attributes, and the facts of the delegation chain cannot be passed in
//     the context.
//   - Whatever Decide returns is sorted, so equal inputs have equal digests.
//   - Text is bounded in size and nesting before Cedar's parser sees it.
//
// The package keeps no cache, knows no clock and does no I/O. It runs at the
// edge, before a command is proposed; the ledger's Apply compares the epochs
// of a [Decision] and does not evaluate policies.
package authz
