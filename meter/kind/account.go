package kind

import (
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// MaxAccountType bounds the word that says what an account stands for.
const MaxAccountType = 16

// AccountBody is the body of `quota.account`: it creates an account below another one. Signed by the tenant's authority or
// under a link that names the action `quota.account` on the parent; then the event's account is the parent. Names are
// addenda.
type AccountBody struct {
	ID     nhi.ID `cbor:"1,keyasint"`
	Parent nhi.ID `cbor:"2,keyasint"` // zero = the tenant's root account
	Type   string `cbor:"3,keyasint"` // org, team, project, agent, run, …: [a-z0-9-]{1,16}
}

// Encode returns the canonical body.
func (b AccountBody) Encode() ([]byte, error) { return canon.Marshal(b) }

// DecodeAccountBody parses and checks the body of `quota.account`.
func DecodeAccountBody(body []byte) (*AccountBody, error) {
	var b AccountBody
	if err := canon.Unmarshal(body, &b); err != nil {
		return nil, fmt.Errorf("decode account: %w", err)
	}
	if b.ID.IsZero() {
		return nil, invalid("id", "is zero")
	}
	if b.ID == b.Parent {
		return nil, invalid("parent", "is the account itself")
	}
	if len(b.Type) == 0 || len(b.Type) > MaxAccountType {
		return nil, invalid("type", "is empty or too long")
	}
	for i := range len(b.Type) {
		if c := b.Type[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return nil, invalid("type", "has a character outside a-z, 0-9 and -")
		}
	}
	return &b, nil
}
