package node

import (
	"slices"
	"testing"

	oversightkind "github.com/creto-systems/creto/oversight/kind"
)

// What oversight takes for kinds that no approval can be used for is what policies judge, and that is not judged as an action
// of its own.
func TestUngrantedKinds(t *testing.T) {
	d := newDomains()
	var want []string
	for _, k := range d.kinds() {
		if _, own := d.questions()[k.Name]; k.Cedar && !own {
			want = append(want, k.Name)
		}
	}
	slices.Sort(want)
	if got := oversightkind.Ungranted(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
