package registry

import (
	"errors"
	"fmt"

	"github.com/creto-systems/creto/nhi/canon"
)

// Code says why something was refused. The numbers stand in details of leaves
// and are never reused. A Code is an error, so that errors.Is finds it.
type Code uint8

// The codes. Those of a delegation chain name the rule they belong to.
const (
	OK Code = 0

	CodeMalformed    Code = 1  // not the canonical form of the body, or out of bounds (rule 1)
	CodeTooLarge     Code = 2  // link body over 4 KiB (rule 1)
	CodeVersion      Code = 3  // unknown version (rule 1)
	CodeWrongLedger  Code = 4  // made for another ledger (rule 1)
	CodeWrongTenant  Code = 5  // made for another tenant (rule 1)
	CodeTooDeep      Code = 6  // more than MaxLinks links (rule 2)
	CodeCycle        Code = 7  // a link above itself (rule 2)
	CodeUnknownLink  Code = 8  // a link of the chain is not registered (rule 2)
	CodeBadRoot      Code = 9  // the root is not issued by a human or declared service (rule 2)
	CodeMisaligned   Code = 10 // the issuer is not the subject of the parent (rule 3)
	CodeIssuerKey    Code = 11 // not the issuer's current key (rule 3)
	CodeSubjectKey   Code = 12 // not the subject's current key (rule 3)
	CodeDepth        Code = 13 // depth is not the parent's plus one (rule 3)
	CodeMaxDepth     Code = 14 // deeper than a max_depth allows, or max_depth raised (rule 3)
	CodeNoRedelegate Code = 15 // the parent may not be passed on (rule 3)
	CodeSelfDealing  Code = 16 // issuer and subject are the same (rule 4)
	CodeRepeated     Code = 17 // somebody stands in the chain twice (rule 4)
	CodeBadSignature Code = 18 // of the issuer (rule 5)
	CodeCountersign  Code = 19 // a root link without the authority's countersignature (rule 5)
	CodeSuite        Code = 20 // names another suite than the registered key's, or an unknown one (rule 5)
	CodeWeakSuite    Code = 21 // suite below the least of its class (rule 5)
	CodeKeyPurpose   Code = 22 // this type of identity receives no links (rule 5)
	CodeEvidence     Code = 23 // evidence of an unknown kind (rule 5)
	CodeWindow       Code = 24 // nbf, exp not a window, or not inside the parent's (rule 6)
	CodeNotYet       Code = 25 // before nbf (rule 6)
	CodeExpired      Code = 26 // at or after exp, or a superseded key past its overlap (rule 6)
	CodeScope        Code = 27 // a scope not inside one single scope of the parent (rule 7)
	CodeBudget       Code = 28 // a budget of the parent missing, raised or changed (rule 8)
	CodeOversight    Code = 29 // an oversight group of the parent missing (rule 9)
	CodeGuard        Code = 30 // guard text not on the ledger (rule 9)
	CodeLinkRevoked  Code = 31 // (rule 10)
	CodeKeyRevoked   Code = 32 // (rule 10)
	CodeRevoked      Code = 33 // an identity is revoked (rule 10)
	CodeSuspended    Code = 34 // an identity is suspended (rule 10)
	CodeNotHolder    Code = 35 // the signer is not the subject of the chain it names (rule 11)
	CodeAudience     Code = 36 // the request is for another ledger, tenant or link (rule 11)
	CodeDenied       Code = 37 // no scope of the chain covers action and resource (rule 7, 11)
	CodeCap          Code = 38 // an amount over the cap of the scope (rule 7, 11)

	CodeUnauthorized    Code = 50 // the signer may not do this
	CodeExists          Code = 51 // the id is or was registered
	CodeUnknownIdentity Code = 52
	CodeUnknownKey      Code = 53
	CodeComponent       Code = 54 // a component of the key was registered or revoked before
	CodePossession      Code = 55 // no proof of possession
	CodeBadKey          Code = 56 // the public key is malformed or weak
	CodeType            Code = 57 // this type is not registered in this log, or not this way
	CodeState           Code = 58 // the identity is not in a state that allows this
	CodeNotFound        Code = 59 // what the body refers to is not there
	CodeWrongLog        Code = 60 // the kind belongs to another log
	CodeTooLong         Code = 61 // an overlap longer than MaxOverlap
	CodeDowngrade       Code = 62 // min_suite would fall, or change the past
	CodeTooMany         Code = 63 // the signer has stored MaxGuards guards
)

var codeNames = map[Code]string{
	OK: "ok", CodeMalformed: "malformed", CodeTooLarge: "too_large", CodeVersion: "unknown_version",
	CodeWrongLedger: "wrong_ledger", CodeWrongTenant: "wrong_tenant", CodeTooDeep: "chain_too_long", CodeCycle: "chain_cycle",
	CodeUnknownLink: "unknown_link", CodeBadRoot: "bad_root", CodeMisaligned: "issuer_not_parents_subject",
	CodeIssuerKey: "not_issuers_key", CodeSubjectKey: "not_subjects_key", CodeDepth: "wrong_depth", CodeMaxDepth: "max_depth_exceeded",
	CodeNoRedelegate: "no_redelegation", CodeSelfDealing: "self_delegation", CodeRepeated: "repeated_identity",
	CodeBadSignature: "bad_signature", CodeCountersign: "bad_countersignature", CodeSuite: "suite_mismatch",
	CodeWeakSuite: "weak_suite", CodeKeyPurpose: "key_purpose", CodeEvidence: "unknown_evidence", CodeWindow: "window_widened",
	CodeNotYet: "not_yet_valid", CodeExpired: "expired", CodeScope: "scope_widened", CodeBudget: "budget_widened",
	CodeOversight: "oversight_narrowed", CodeGuard: "unknown_guard", CodeLinkRevoked: "link_revoked", CodeKeyRevoked: "key_revoked",
	CodeRevoked: "identity_revoked", CodeSuspended: "identity_suspended", CodeNotHolder: "not_the_holder",
	CodeAudience: "wrong_audience", CodeDenied: "outside_scope", CodeCap: "over_cap",
	CodeUnauthorized: "unauthorized", CodeExists: "exists", CodeUnknownIdentity: "unknown_identity", CodeUnknownKey: "unknown_key",
	CodeComponent: "component_reused", CodePossession: "no_proof_of_possession", CodeBadKey: "bad_key", CodeType: "wrong_type",
	CodeState: "wrong_state", CodeNotFound: "not_found", CodeWrongLog: "wrong_log", CodeTooLong: "overlap_too_long",
	CodeDowngrade: "suite_downgrade", CodeTooMany: "too_many",
}

// String returns the name of the code: lower-case ASCII with underscores.
func (c Code) String() string {
	if n, ok := codeNames[c]; ok {
		return n
	}
	return fmt.Sprintf("code_%d", uint8(c))
}

// Error returns the name of the code.
func (c Code) Error() string { return c.String() }

// Class groups codes by what a caller can do about them; the ledger maps it to
// an outcome.
type Class uint8

// The classes.
const (
	ClassOK           Class = iota
	ClassInvalid            // say something else
	ClassUnauthorized       // somebody else may
	ClassNotFound           // refers to what is not there
	ClassExists             // already there
	ClassRevoked            // will never work again
	ClassFrozen             // may work again after a resume
	ClassExpired            // too late
	ClassNotYet             // too early
	ClassWeakSuite          // needs a stronger key
	ClassBadSignature       // a signature that Apply verifies does not hold
	ClassConflict           // the state says otherwise
	ClassLimit              // a structural bound
)

// Class returns the class of c.
func (c Code) Class() Class {
	switch c {
	case OK:
		return ClassOK
	case CodeMisaligned, CodeNoRedelegate, CodeSelfDealing, CodeRepeated, CodeBadRoot, CodeKeyPurpose, CodeScope, CodeBudget,
		CodeOversight, CodeWindow, CodeMaxDepth, CodeNotHolder, CodeAudience, CodeDenied, CodeCap, CodeUnauthorized,
		CodeWrongLedger, CodeWrongTenant, CodeCountersign:
		return ClassUnauthorized
	case CodeUnknownLink, CodeGuard, CodeUnknownIdentity, CodeUnknownKey, CodeNotFound:
		return ClassNotFound
	case CodeExists, CodeComponent:
		return ClassExists
	case CodeLinkRevoked, CodeKeyRevoked, CodeRevoked:
		return ClassRevoked
	case CodeSuspended:
		return ClassFrozen
	case CodeExpired:
		return ClassExpired
	case CodeNotYet:
		return ClassNotYet
	case CodeWeakSuite, CodeDowngrade:
		return ClassWeakSuite
	case CodeBadSignature, CodePossession:
		return ClassBadSignature
	case CodeState:
		return ClassConflict
	case CodeTooDeep, CodeTooLarge, CodeTooLong, CodeTooMany:
		return ClassLimit
	}
	return ClassInvalid
}

// Error is every refusal of this package. Match it with errors.Is and a Code, or
// with errors.AsType.
type Error struct {
	Code Code
	Hop  int // depth of the link it is about, root 0; -1 = none
	Err  error
}

func refuse(c Code) *Error { return &Error{Code: c, Hop: -1} }

func refuseAt(c Code, hop int) *Error { return &Error{Code: c, Hop: hop} }

func refuseFor(c Code, err error) *Error { return &Error{Code: c, Hop: -1, Err: err} }

// Error says what was refused.
func (e *Error) Error() string {
	s := "identity registry: " + e.Code.String()
	if e.Hop >= 0 {
		s += fmt.Sprintf(" at link %d of the chain", e.Hop)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is reports whether target is the code of e.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of an error of this package: OK for nil, CodeMalformed
// for a foreign error.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeMalformed
}

// Refusal is the detail of a refused event.
type Refusal struct {
	Code Code   `cbor:"1,keyasint"`
	Name string `cbor:"2,keyasint"`
	Hop  *int   `cbor:"3,keyasint,omitempty"` // depth of the link that broke a rule
}

func refused(err error) Result {
	r := Refusal{Code: CodeOf(err)}
	if e, ok := errors.AsType[*Error](err); ok && e.Hop >= 0 {
		r.Hop = &e.Hop
	}
	r.Name = r.Code.String()
	return Result{Code: r.Code, Detail: canon.MustMarshal(r)}
}
