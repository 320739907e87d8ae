package kv

// Samples of everything that has an encoding: each kind and each field, empty
// and full. They are the golden encodings, the seeds of the fuzz tests, and what
// is bent byte by byte.

func id(s string) (id LeaseID) {
	copy(id[:], s)
	return id
}

type commandSample struct {
	name    string
	command Command
}

func commandSamples() []commandSample {
	txn := func(then ...Op) Command { return Command{Kind: KindTxn, Txn: &Txn{Then: then}} }
	return []commandSample{
		{"put", txn(Op{Type: OpPut, Key: []byte("a"), Value: []byte("1")})},
		{"put of an empty value at a time", Command{Kind: KindTxn, Time: 1_700_000_000_000, Txn: &Txn{
			Then: []Op{{Type: OpPut, Key: []byte("a\x00\xff"), Value: []byte{}}},
		}}},
		{"put with everything", txn(Op{
			Type: OpPut, Key: []byte("key"), Value: []byte("value"), ContentType: "text/plain", Lease: id("lease"),
			OwnTTLMillis: 30_000, IgnoreValue: true, IgnoreLease: true, Prev: true,
		})},
		{"put of the next key of a sequence", txn(Op{Type: OpPut, Key: []byte("queue/"), Value: []byte("1"), Sequence: true})},
		{"delete of one key and of all", txn(
			Op{Type: OpDelete, Range: SingleKey([]byte("a")), Prev: true}, Op{Type: OpDelete},
		)},
		{"increments", txn(
			Op{Type: OpIncrement, Key: []byte("n"), By: 1}, Op{Type: OpIncrement, Key: []byte("n"), By: -1 << 63},
		)},
		{"get", txn(Op{Type: OpGet, Query: &Query{Range: Prefix([]byte("a/"))}})},
		{"get with everything", txn(Op{Type: OpGet, Query: &Query{
			Range: Range{Start: []byte("a"), End: []byte("z")}, Revision: 300, Limit: 10, MaxBytes: 1 << 20, After: []byte("m"),
			Descending: true, Sort: SortByMod, KeysOnly: true, CountOnly: true, Count: true, Delimiter: []byte("/"), PrefixLen: 2,
			MinModRevision: 1, MaxModRevision: 2, MinCreateRevision: 3, MaxCreateRevision: 1 << 40,
		}})},
		{"transaction with every target and operator, and a nested one", Command{Kind: KindTxn, Txn: &Txn{
			If: []Compare{
				{Range: SingleKey([]byte("a")), Target: TargetValue, Operator: Equal, Bytes: []byte("x")},
				{Range: Prefix([]byte("b")), Target: TargetVers, Operator: NotEqual, Number: 1},
				{Range: Range{Start: []byte("c")}, Target: TargetCreate, Operator: Greater, Number: 128},
				{Target: TargetMod, Operator: Less, Number: 1 << 60},
				{Range: SingleKey([]byte("d")), Target: TargetLease, Operator: GreaterOrEqual, Lease: id("lease")},
				{Range: SingleKey([]byte("e")), Target: TargetVers, Operator: LessOrEqual},
			},
			Then: []Op{{Type: OpTxn, Txn: &Txn{Else: []Op{{Type: OpTxn, Txn: &Txn{}}}}}},
			Else: []Op{{Type: OpDelete, Range: SingleKey([]byte("f"))}},
		}}},
		{"command of a principal with an idempotency key", Command{
			Kind: KindTxn, Principal: "bob", AuthRevision: 7, Time: -1, IdempotencyKey: "retry-1",
			Fingerprint: [16]byte{0: 1, 15: 0xff}, Txn: &Txn{},
		}},
		{"compact", Command{Kind: KindCompact, Compact: 1 << 33}},
		{"clock", Command{Kind: KindClock, Clock: Clock{Prev: 99, AdvanceMillis: 250}}},
		{"grant", Command{Kind: KindLeaseGrant, Lease: Lease{ID: id("lease"), Number: 1<<63 - 1, TTLMillis: 10_000}}},
		{"renewal of two and of none", Command{Kind: KindLeaseRenew, Renew: []LeaseID{id("l1"), id("l2")}}},
		{"renewal of none", Command{Kind: KindLeaseRenew, Renew: []LeaseID{}}},
		{"revocation", Command{Kind: KindLeaseRevoke, Lease: Lease{ID: id("lease")}}},
		{"expiry", Command{Kind: KindLeaseExpire, Lease: Lease{ID: id("lease"), Generation: 3}}},
		{"requeuing of two", Command{Kind: KindLeaseRequeue, Renew: []LeaseID{id("l1"), id("l2")}}},
		{"alarm", Command{Kind: KindAlarm, Alarm: Alarm{Replica: 3, Type: AlarmCorrupt, Active: true}}},
		{"alarm's end", Command{Kind: KindAlarm, Alarm: Alarm{Replica: 3, Type: AlarmNoSpace}}},
		{"member", Command{Kind: KindMember, Member: Member{
			Replica: 4, ID: id("member"), Name: "n1", Version: 1<<32 - 1, ClientURL: "https://n1:7480", PeerAddress: "n1:7481",
		}}},
		{"scrub by three", Command{Kind: KindScrub, Scrub: Scrub{Members: []uint64{1, 2, 300}, Bytes: 64 << 20}}},
		{"find of a scrub", Command{Kind: KindScrubbed, Scrubbed: Scrubbed{Step: 9, Replica: 2, Sum: [32]byte{1, 31: 2}, Next: []byte("vk\x00\x01")}}},
		{"find of a scrub's last step", Command{Kind: KindScrubbed, Scrubbed: Scrubbed{Step: 1 << 40, Replica: 300}}},
		{"membership", Command{Kind: KindMembership, Time: 5, Membership: Membership{
			Step: MembershipJoin, State: MemberJoining, Replica: 300, Floor: 3, ID: id("member"), Name: "n4", PeerAddress: "n4:7481",
			Token: [32]byte{1, 31: 2}, Claim: id("claim"), ExpiresMillis: 1_700_000_000_000, Learner: true, Voted: true,
		}}},
		{"restore's beginning", Command{Kind: KindRestore, Time: 1_700_000_000_000, Restore: &Restore{Step: RestoreBegin, Backup: [32]byte{1, 31: 2}}}},
		{"restore of a lease and two keys", Command{Kind: KindRestore, Restore: &Restore{
			Step: RestorePart, Backup: [32]byte{1, 31: 2}, Part: 300, Content: contentSample(),
		}}},
		{"restore's end", Command{Kind: KindRestore, Restore: &Restore{Step: RestoreEnd, Backup: [32]byte{1, 31: 2}, Part: 301, Revision: 1 << 40}}},
	}
}

// contentSample is a piece of a backup.
func contentSample() []byte {
	b := AppendBackupLease(nil, &BackupLease{ID: id("l1"), Number: 5, TTLMillis: 10_000, RemainingMillis: 3_000, Keys: 1, Bytes: 1, Own: true})
	b = AppendBackupEntry(b, &Entry{Key: []byte("a"), Value: []byte{}, CreateRevision: 2, ModRevision: 2, Version: 1, Lease: id("l1")})
	return AppendBackupEntry(b, &Entry{
		Key: []byte("b\x00"), Value: []byte("v"), ContentType: "text/plain", CreateRevision: 2, ModRevision: 300, Version: 5, ModifiedAt: 1_700_000_000_000,
	})
}

type resultSample struct {
	name   string
	result Result
}

func resultSamples() []resultSample {
	entry := Entry{
		Key: []byte("k"), Value: []byte("v"), ContentType: "text/plain", CreateRevision: 2, ModRevision: 300, Version: 5,
		Lease: id("lease"), ModifiedAt: 1_700_000_000_000,
	}
	bare := Entry{Key: []byte("k\x00"), Value: []byte{}}
	return []resultSample{
		{"nothing done", Result{Revision: 1}},
		{"refusal", Result{Code: LeaseNotFound, Detail: "there is no lease", Revision: 9, CompactRevision: 4}},
		{"put, increment, delete", Result{Revision: 10, CompactRevision: 4, Succeeded: true, Changed: true, Ops: []OpResult{
			{Type: OpPut, Created: true, Version: 1, Lease: id("lease")},
			{Type: OpPut, Version: 6, Prev: []Entry{entry}},
			{Type: OpIncrement, Version: 2, Value: -1 << 63},
			{Type: OpDelete, Deleted: 2, Prev: []Entry{entry, bare}},
		}}},
		{"list", Result{Revision: 10, Ops: []OpResult{{Type: OpGet, List: &List{
			Revision: 7, Entries: []Entry{bare, entry}, CommonPrefixes: [][]byte{[]byte("a/"), {0}}, More: true, Next: []byte("k"), Count: 12,
		}}}}},
		{"nested, elided", Result{Elided: true, Ops: []OpResult{
			{Type: OpTxn, Txn: &Result{Succeeded: true, Ops: []OpResult{{Type: OpTxn, Txn: &Result{}}}}},
			{Type: OpGet, List: &List{}},
		}}},
		{"leases", Result{Revision: 1, Leases: []LeaseResult{
			{ID: id("l1"), Number: 5, TTLMillis: 10_000}, {ID: id("l2"), Code: LeaseNotFound},
		}}},
	}
}
