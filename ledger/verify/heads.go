package verify

import (
	"strings"

	"github.com/creto-systems/creto/nhi"
)

// MaxOriginSize bounds an origin line and a key name: type 06 cosignatures encode its length in one byte.
const MaxOriginSize = 255

// HeadLeaf is leaf n of the heads tree: the head of the tenant log in slot n. Canonical CBOR with the integer keys of the
// tags, all present.
type HeadLeaf struct {
	V      uint64     `cbor:"1,keyasint"` // 1
	Cell   uint64     `cbor:"2,keyasint"`
	Slot   uint32     `cbor:"3,keyasint"`
	Origin string     `cbor:"4,keyasint"` // TenantOrigin, or SystemOrigin for slot 0
	Size   uint64     `cbor:"5,keyasint"` // leaves in the tenant's log
	Root   nhi.Digest `cbor:"6,keyasint"` // root of the tenant's log at Size
}

// SpineLeaf is one leaf of the spine: what one seal committed. Canonical CBOR with the integer keys of the tags, all
// present.
type SpineLeaf struct {
	V             uint64       `cbor:"1,keyasint"` // 1
	Cell          uint64       `cbor:"2,keyasint"`
	Epoch         uint64       `cbor:"3,keyasint"`
	Time          int64        `cbor:"4,keyasint"` // stamp of the seal, Unix nanoseconds
	HeadsSize     uint64       `cbor:"5,keyasint"` // slots in the heads tree
	HeadsRoot     nhi.Digest   `cbor:"6,keyasint"`
	StateHash     nhi.Digest   `cbor:"7,keyasint"` // through the command before the seal
	ActiveVersion uint64       `cbor:"8,keyasint"`
	Flags         QualityFlags `cbor:"9,keyasint,omitempty"` // how Time was made, as in a leaf's quality
}

// SpineOrigin returns the origin of a cluster's spine: "<cluster>/spine".
func SpineOrigin(cluster string) string { return cluster + "/spine" }

// SystemOrigin returns the origin of a cluster's system log, slot 0: "<cluster>/system".
func SystemOrigin(cluster string) string { return cluster + "/system" }

// TenantOrigin returns the origin of a tenant's log: "<cluster>/t/<tenant id>". The zero ID is the system log.
func TenantOrigin(cluster string, tenant nhi.ID) string {
	if tenant.IsZero() {
		return SystemOrigin(cluster)
	}
	return cluster + "/t/" + tenant.String()
}

// NodeKeyName returns the name of a node's cosigning key, "<cluster>/node/<id>/<alg>", where alg is "ed" (type 04) or
// "pq" (type 06).
func NodeKeyName(cluster string, node nhi.ID, alg string) string {
	return cluster + "/node/" + node.String() + "/" + alg
}

// AuditKeyName returns the name of a node's audit key: "<cluster>/audit/<id>".
func AuditKeyName(cluster string, node nhi.ID) string { return cluster + "/audit/" + node.String() }

// ClusterOf returns the cluster of a spine origin, and false if origin is not one.
func ClusterOf(spineOrigin string) (string, bool) {
	c, ok := strings.CutSuffix(spineOrigin, "/spine")
	return c, ok && c != ""
}

// TenantOf returns the tenant of an origin within cluster: the zero ID for the system log, false if origin is neither.
func TenantOf(cluster, origin string) (nhi.ID, bool) {
	if origin == SystemOrigin(cluster) {
		return nhi.ID{}, true
	}
	text, ok := strings.CutPrefix(origin, cluster+"/t/")
	if !ok {
		return nhi.ID{}, false
	}
	id, err := nhi.ParseID(text)
	if err != nil || id.IsZero() {
		return nhi.ID{}, false
	}
	return id, true
}
