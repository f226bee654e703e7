#!/usr/bin/env bash
# Breaks one rule of the code after the other, in a scratch copy of the committed tree, and shows that the named test fails.
# usage: test/faults/mutate.sh [NAME…]   (all of DESIGN.md's list by default)
set -euo pipefail
cd "$(dirname "$0")/../.."
# Vectors that stand beside the repository are not in the copy.
conformance=${CRETO_CONFORMANCE:-$(cd .. && pwd)/shared/conformance}
[[ -d $conformance ]] || conformance=
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# A test that hangs without its rule is killed, and leaves its files: here. Sandboxes enter as nobody.
export TMPDIR=$scratch/tmp
mkdir -m 1777 "$TMPDIR"
chmod 711 "$scratch"
git archive HEAD | tar -x -C "$scratch"
cd "$scratch"
export CGO_ENABLED=0
[[ -z ${conformance-} ]] || export CRETO_CONFORMANCE=$conformance
survived=0 killed=0
only=" $* "

# mutation NAME PACKAGE TEST FILE FROM TO [IMPORT]: replaces FROM, which must stand in FILE exactly once, by TO.
mutation() {
	local name=$1 package=$2 test=$3 file=$4 from=$5 to=$6 import=${7:-}
	[[ $only == "  " || $only == *" $name "* ]] || return 0
	cp "$file" "$scratch/original"
	if ! FROM=$from TO=$to perl -0777 -i -pe 'BEGIN { $f = $ENV{FROM}; $t = $ENV{TO} } $n = s/\Q$f\E/$t/g; END { exit($n == 1 ? 0 : 1) }' "$file"; then
		echo "BROKEN   $name: its place in $file is not there, or not once"
		survived=$((survived + 1))
		cp "$scratch/original" "$file"
		return
	fi
	if [[ -n $import ]] && ! grep -q "^	\"$import\"" "$file"; then
		sed -i "0,/^import (/s//import (\n\t\"${import//\//\\/}\"/" "$file"
	fi
	if ! go build "$package" >"$scratch/out" 2>&1; then
		echo "BROKEN   $name: does not compile: $(head -3 "$scratch/out" | tr '\n' ' ')"
		survived=$((survived + 1))
	elif go test -count=1 -timeout 90s -run "^($test)\$" "$package" >"$scratch/out" 2>&1; then
		echo "SURVIVED $name: $test of $package still passes"
		survived=$((survived + 1))
	else
		echo "killed   $name by $test: $(grep -m1 -E '_test.go:[0-9]+: |^panic: |^FAIL' "$scratch/out" | sed 's/^ *//' | cut -c1-150)"
		killed=$((killed + 1))
	fi
	cp "$scratch/original" "$file"
}

# --- rules of the transaction
mutation refusal-writes ./ledger TestWhatARefusalReturnsIsNotApplied ledger/events.go \
	$'	if accepted {\n		if err := a.perform(' $'	if true {\n		if err := a.perform('
mutation apply-reads-a-clock ./ledger 'TestReplayGivesTheSameStateHoweverCommandsAreBatched|TestStampsRiseWhateverIsProposed' ledger/apply.go \
	$'	a.next = proposed\n' $'	a.next = max(proposed, time.Now().UnixNano())\n' time
mutation handler-reads-a-clock ./meter 'TestLeaseOnTheLedger|TestOnTheLedger' meter/lease.go \
	'Expires: at.Time + ttl,' 'Expires: time.Now().UnixNano() + ttl,' time
mutation handler-iterates-a-map ./meter 'TestOnTheLedger|TestLeaseOnTheLedger|TestZoneOnTheLedger' meter/counter.go \
	$'	for i := range c.counters {\n		if k := &c.counters[i]; k.dirty {\n			start := len(c.arena)' \
	$'	all := make(map[int]bool)\n	for i := range c.counters {\n		all[i] = true\n	}\n	for i := range all {\n		if k := &c.counters[i]; k.dirty {\n			start := len(c.arena)'
mutation apply-iterates-a-map ./meter 'TestOnTheLedger|TestLeaseOnTheLedger' ledger/events.go \
	$'	for i := range d.Writes {\n		w := &d.Writes[i]\n		a.x.key' \
	$'	all := make(map[int]bool)\n	for i := range d.Writes {\n		all[i] = true\n	}\n	for i := range all {\n		w := &d.Writes[i]\n		a.x.key'
mutation id-row-is-lost ./ledger TestSameRequestIsAnsweredOnce ledger/events.go \
	$'		detail: d.Detail,\n	}\n	a.x.set(rkey, r.encode())\n' $'		detail: d.Detail,\n	}\n	_ = r\n'
mutation stale-verdict-counts ./ledger 'TestVerdictOfOtherEpochsIsStale|TestEpochsThatAnEarlierEventOfTheCommandRaises' ledger/events.go \
	'verdict.Outcome == VerdictNone || verdict.Epochs != v.epochs' 'verdict.Outcome == VerdictNone'
mutation handler-writes-anywhere ./ledger TestHandlerThatExceedsWhatItDeclaredStopsTheNode ledger/events.go \
	'case !h.tables[w.Table]:' 'case !h.tables[w.Table] && w.Table == 0:'
mutation asks-need-no-authority ./ledger TestAskAndFactWhenAuthorityIsGone ledger/events.go \
	'		if !cites {
' '		if false {
'
mutation stamps-repeat ./ledger TestStampsRiseWhateverIsProposed ledger/apply.go \
	'	if proposed <= a.meta.last || proposed > maxStamp {' '	if proposed < a.meta.last || proposed > maxStamp {'

# --- quotas, approvals
mutation room-forgets-what-is-open ./meter TestModel meter/counter.go \
	'return subSat(c.limit, addSat(addSat(c.charged, c.excess), c.open))' 'return subSat(c.limit, addSat(c.charged, c.excess))'
mutation over-claims-take-all-room ./meter 'TestModel|TestOverClaimTakesNobodysRoom' meter/lease.go \
	'take := min(over, l.Granted-l.Taken)' 'take := over'
mutation over-claims-pass-limits ./meter 'TestModel|TestOverClaimNeverPassesALimit' meter/lease.go \
	'room < take {' 'room < take && false {'
mutation expiry-returns-units ./meter 'TestModel|TestExpiryReturnsNothing' meter/lease.go \
	'func (s LeaseState) holdsUnits() bool { return s == LeaseOpen || s == LeaseExpired }' \
	'func (s LeaseState) holdsUnits() bool { return s == LeaseOpen }'
mutation sequence-numbers-settle-twice ./meter 'TestModel|TestReserveSettleClose|TestLeaseRules' meter/lease.go \
	'	l.Next = s.to
' ''
mutation self-approval ./oversight 'TestVoteRules|TestLinkDemandsOversight' oversight/vote.go \
	'	case kind.HasID(r.Members, ev.Agent):
' '	case false && kind.HasID(r.Members, ev.Agent):
'
mutation claimed-twice ./oversight 'TestPath|TestClaimRules' oversight/claim.go \
	'	r.become(kind.StateClaimed, at.Time)
' ''
mutation another-action-is-claimed ./oversight 'TestClaimRules|TestPath' oversight/claim.go \
	'	case b.ActionDigest != r.Digest:
' '	case false:
'

# --- edge, signing, consensus, verification
mutation edge-trusts-signatures ./ledger/edge TestSubmitRefuses ledger/edge/check.go \
	'	if errors.Is(err, nhi.ErrBadSignature) {
		return nil, ErrUnauthenticated
	}
' '	if errors.Is(err, nhi.ErrBadSignature) {
		for _, p := range env.Payloads {
			ev, derr := nhi.DecodeEvent(p)
			if derr != nil {
				return nil, derr
			}
			events = append(events, ev)
		}
		err = nil
	}
'
mutation half-a-signature-is-enough ./nhi 'TestIdentity01CompositeVectors|TestIdentity02StrippedHalf|TestVectorsCompositeNegative|TestIdentity06MixAndMatch' nhi/key.go \
	'!verifyEd25519(p.bytes[mldsa65PublicKeySize:], m, sig[mldsa65SignatureSize:]) {' 'len(p.bytes) == 0 {'
mutation signs-another-root ./ledger/publish 'TestMarkSurvives|TestForkBeyondMark' ledger/publish/publisher.go \
	'	case head.Size == last.Size && head.Root != last.Root:' '	case head.Size == last.Size && head.Root != last.Root && false:'
mutation mark-is-not-kept ./ledger/publish 'TestMarkSurvives|TestForkBeyondMark' ledger/publish/publisher.go \
	'if err := p.store.put(keyMark, &m); err != nil {' 'if err := error(nil); err != nil {'
mutation storage-errors-reach-raft ./consensus 'TestFsyncErrorStopsLeader|TestRaft07FsyncErrorStopsFollower' consensus/store.go \
	$'		s.fail(ExitStorage, fmt.Errorf("%s: %w", op, err))\n' $'		return err\n'
mutation reads-need-no-quorum ./consensus 'TestRaft05ReadIgnoresOldAnswers|TestAmbiguousAndReadsUnderPartition' consensus/read.go \
	$'	r, err := n.reads.join()\n' $'	if n.Leading() {\n		return n.raft.AppliedIndex(), nil\n	}\n	r, err := n.reads.join()\n'
mutation consistency-is-not-checked ./ledger/verify 'TestConformanceConsistency|TestMerkleTraps' ledger/verify/merkle.go \
	'		return fmt.Errorf("%w: consistency of sizes %d and %d", ErrProof, size1, size2)' '		return nil'
mutation consistency-from-nothing ./ledger/verify 'TestConformanceConsistency|TestMerkleTraps' ledger/verify/merkle.go \
	$'	case size1 == 0:\n' $'	case size1 == 0 && size2 == 0:\n'

# --- the wrapper of the Raft library
mutation commit-beyond-the-request ./consensus 'TestHazardFollowerCommitRule' consensus/transport.go \
	'cmd.LeaderCommitIndex > shared {' 'cmd.LeaderCommitIndex > shared && shared == 0 {'
mutation snapshots-are-taken ./consensus 'TestHazardInstallSnapshotLivelock' consensus/transport.go \
	$'			rpc.Respond(nil, errNoSnapshots)\n' $'			rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)\n'
mutation slow-leader-keeps-leading ./consensus 'TestRaft06HungDiskOfLeader|TestSlowDiskOfLeaderMovesLeadershipOnly' consensus/watchdog.go \
	'	if !n.rawLeading() || n.handingOver.Swap(true) {' '	if !n.rawLeading() || n.handingOver.Swap(true) || true {'
mutation hung-leader-stays ./consensus 'TestRaft06HungDiskOfLeader' consensus/watchdog.go \
	'		if o.s.leading() {' '		if false {'
mutation hung-follower-stays ./consensus 'TestHungDiskOfFollowerStops' consensus/watchdog.go \
	$'		o.timer.Reset(p.limit - p.leader)\n' ''
mutation log-is-not-scrubbed ./consensus 'TestRaft09BitFlipInLog' consensus/verify.go \
	'		if n.scrub(ctx) != nil {' '		if n == nil {'
mutation replay-is-not-verified ./consensus 'TestBitFlipIsNotReplayed' consensus/verify.go \
	'			case got == want:' '			case got == want || last > 0:'
mutation rot-is-not-noticed ./consensus 'TestRotIsNoticedAtTheNextCheckpoint' consensus/verify.go \
	$'	case errors.As(r.Err, &mismatch):\n' $'	case errors.As(r.Err, &mismatch):\n		return\n'
mutation truncation-raises-alarms ./consensus 'TestCheckpointsUnderPartitions' consensus/verify.go \
	$'	v.mu.Lock()\n	v.generation++\n	generation := v.generation\n	v.mu.Unlock()\n	err := v.storage.DeleteRange(min, max)\n	v.begin(generation)\n	return err' \
	'	return v.storage.DeleteRange(min, max)'
mutation quarantine-is-forgotten ./consensus 'TestRaft09BitFlipInLog|TestBitFlipIsNotReplayed' consensus/node.go \
	$'	if err := checkQuarantine(dir); err != nil {\n' $'	if err := checkQuarantine(dir); err != nil && dir == "" {\n'
mutation full-disk-takes-proposals ./consensus 'TestRaft08NearlyFullDisk' consensus/disk.go \
	'	if !d.full.Load() {' '	if true {'
mutation ballast-is-kept ./consensus 'TestNoSpaceStopsAndGivesBallastUp|TestBallast' consensus/disk.go \
	'	err := os.Remove(filepath.Join(d.dir, ballastFile))' '	var err error'
mutation log-sink-is-waited-for ./cmd/creto/node 'TestBlockedLogDoesNotKeepANodeThatMustStop' consensus/hclog.go \
	$'	select {\n	case q.queue <- logRecord{q.sink, r}:\n	default:\n		q.dropped.Add(1)\n	}\n	return nil' \
	'	return q.sink.Handle(noContext{}, r)'
mutation peers-speak-for-others ./consensus 'TestRaft31PeersAreBoundToTheirIdentity|TestFilterPassesTheLibrary' consensus/frame.go \
	'if f.id != "" && string(f.value[:f.valLen]) != f.id {' 'if f.id != "" && f.valLen == 0 {'

echo "$killed killed, $survived survived or broken"
[[ $survived == 0 && $killed -gt 0 ]]
