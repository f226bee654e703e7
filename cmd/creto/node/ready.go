package node

import (
	"encoding/json"
	"fmt"
	"os"
)

// ReadyFile says where a development cluster is and how to reach it. Its JSON form is a contract; paths are absolute.
type ReadyFile struct {
	GRPC        []string `json:"grpc"` // host:port of each node
	Tenant      string   `json:"tenant"`
	ReadToken   string   `json:"read_token"`
	AdminCert   string   `json:"admin_cert"` // SVID of the admin, for mutual TLS
	AdminKey    string   `json:"admin_key"`
	CA          string   `json:"ca"` // trust bundle of the listeners
	Trust       string   `json:"trust"`
	Origin      string   `json:"origin"` // of the tenant's log
	VKey        string   `json:"vkey"`
	SpineOrigin string   `json:"spine_origin"`
	SpineVKey   string   `json:"spine_vkey"`
	TenantURL   string   `json:"tenant_url"` // prefixes of the tiles, without final slash
	SpineURL    string   `json:"spine_url"`
	DataDir     string   `json:"data_dir"`
	PID         int      `json:"pid"`

	LedgerID     string   `json:"ledger_id"`
	Admin        string   `json:"admin"`         // id
	AdminSigner  string   `json:"admin_signer"`  // key file of the admin
	Authority    string   `json:"authority"`     // id of the tenant's identity authority
	AuthorityKey string   `json:"authority_key"` // its key file
	Nodes        []string `json:"nodes"`         // ids, in the order of GRPC
	Metrics      []string `json:"metrics"`       // URL prefixes
	Sockets      []string `json:"admin_sockets"`
	Test         bool     `json:"test"`
}

// WriteReady writes the file whole or not at all, readable by its owner only: it holds a token.
func WriteReady(path string, r *ReadyFile) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	return replaceFile(path, append(b, '\n'), 0o600)
}

// ReadReady reads a ready file.
func ReadReady(path string) (*ReadyFile, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read ready file: %w", err)
	}
	r := new(ReadyFile)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read ready file %s: %w", path, err)
	}
	return r, nil
}
