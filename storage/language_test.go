package storage

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/oklog/ulid/v2"
)

// The language of the scenarios: one command a line, or separated by ";".
//
//	put KEY VALUE [lease=L] [own=MILLIS] [type=T] [prev] [ignore-value] [ignore-lease] [sequence]
//	delete RANGE [prev]
//	increment KEY BY
//	get RANGE [rev= limit= bytes= after= delimiter= prefix-len= sort= min-mod= max-mod=
//	          min-create= max-create=] [descending] [keys-only] [count] [count-only]
//	txn { if TARGET RANGE OPERATOR OPERAND; then OPERATION; else OPERATION; … }
//	compact REVISION
//	clock MILLIS [PREVIOUS]        the previous step is filled in where it is left out
//	grant L MILLIS [number=N]      renew L …    revoke L    expire L GENERATION
//	alarm REPLICA TYPE on|off
//	member REPLICA id=L name= version= client= peer=
//
// Words that begin with "@" stand before a command and belong to all of it:
// @time=, @as= (principal), @auth= (revision), @id= (idempotency key),
// @print= (fingerprint).
//
// A RANGE is KEY (that one), A..B (B excluded, either may be left out) or
// PREFIX*. Bytes are bare, quoted as in Go, or fill:COUNT:BYTE. A lease is a
// short name, which is its id's first bytes, or a ULID.
//
// A random history that fails is printed in this language, so it can become a
// scenario as it is.

// parseCommands reads all commands of a text. clock gives the index of the last
// step of the clock.
func parseCommands(text string, clock func() uint64) (commands []*kv.Command, err error) {
	p := &parser{words: splitWords(text), clock: clock}
	defer func() {
		if bad, ok := recover().(parseError); ok {
			err = bad
		}
	}()
	for p.skipEnds(); !p.done(); p.skipEnds() {
		commands = append(commands, p.command())
	}
	return commands, nil
}

type parseError string

func (e parseError) Error() string { return string(e) }

type parser struct {
	words []string
	clock func() uint64
}

func fail(format string, args ...any) { panic(parseError(fmt.Sprintf(format, args...))) }

// splitWords splits at spaces outside of quotes. Braces are words of their own
// and so are the ends of commands, ";".
func splitWords(text string) (words []string) {
	word, quoted := "", false
	end := func() {
		if word != "" {
			words = append(words, word)
		}
		word = ""
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quoted && c == '\\':
			word += text[i : i+2]
			i++
		case c == '"':
			quoted = !quoted
			word += `"`
		case quoted:
			word += string(c)
		case c == ';' || c == '\n':
			end()
			words = append(words, ";")
		case c == '{' || c == '}':
			end()
			words = append(words, string(c))
		case c == ' ' || c == '\t':
			end()
		default:
			word += string(c)
		}
	}
	end()
	return words
}

func (p *parser) done() bool { return len(p.words) == 0 }

func (p *parser) peek() string {
	if p.done() {
		return ";"
	}
	return p.words[0]
}

func (p *parser) next() string {
	w := p.peek()
	if w == ";" || w == "}" {
		fail("a command ends too early, before %q", p.words)
	}
	p.words = p.words[1:]
	return w
}

func (p *parser) skipEnds() {
	for !p.done() && p.peek() == ";" {
		p.words = p.words[1:]
	}
}

// more reports whether the command has more words.
func (p *parser) more() bool { return p.peek() != ";" && p.peek() != "}" }

// options calls fn for the remaining words of a command, name=value or name.
func (p *parser) options(fn func(name, value string) bool) {
	for p.more() {
		w := p.next()
		name, value, _ := strings.Cut(w, "=")
		if !fn(name, value) {
			fail("unknown option %q", w)
		}
	}
}

func number(w string) uint64 {
	n, err := strconv.ParseUint(w, 10, 64)
	if err != nil {
		fail("%q is no number", w)
	}
	return n
}

func signed(w string) int64 {
	n, err := strconv.ParseInt(w, 10, 64)
	if err != nil {
		fail("%q is no number", w)
	}
	return n
}

func text(w string) []byte {
	if rest, ok := strings.CutPrefix(w, "fill:"); ok {
		count, fill, _ := strings.Cut(rest, ":")
		return bytes.Repeat(text(fill), int(number(count)))
	}
	if !strings.HasPrefix(w, `"`) {
		return []byte(w)
	}
	s, err := strconv.Unquote(w)
	if err != nil {
		fail("%s: %v", w, err)
	}
	return []byte(s)
}

func leaseName(w string) (id kv.LeaseID) {
	if id, err := ulid.ParseStrict(w); err == nil {
		return id
	}
	if w == "-" {
		return id
	}
	copy(id[:], text(w))
	return id
}

func rangeOf(w string) kv.Range {
	if start, end, ok := strings.Cut(w, ".."); ok {
		r := kv.Range{Start: text(start)}
		if end != "" {
			r.End = text(end)
		}
		return r
	}
	if prefix, ok := strings.CutSuffix(w, "*"); ok {
		return kv.Prefix(text(prefix))
	}
	return kv.SingleKey(text(w))
}

func (p *parser) command() *kv.Command {
	c := &kv.Command{}
	for strings.HasPrefix(p.peek(), "@") {
		name, value, _ := strings.Cut(p.next(), "=")
		switch name {
		case "@time":
			c.Time = signed(value)
		case "@as":
			c.Principal = string(text(value))
		case "@auth":
			c.AuthRevision = number(value)
		case "@id":
			c.IdempotencyKey = string(text(value))
		case "@print":
			copy(c.Fingerprint[:], text(value))
		default:
			fail("unknown word %q", name)
		}
	}
	switch word := p.peek(); word {
	case "put", "delete", "increment", "get":
		c.Kind, c.Txn = kv.KindTxn, &kv.Txn{Then: []kv.Op{p.operation()}}
	case "txn":
		p.next()
		c.Kind, c.Txn = kv.KindTxn, p.txn()
	default:
		p.next()
		p.rest(word, c)
	}
	if p.more() {
		fail("too many words: %q", p.words)
	}
	return c
}

// rest reads the commands that are not transactions.
func (p *parser) rest(word string, c *kv.Command) {
	switch word {
	case "compact":
		c.Kind, c.Compact = kv.KindCompact, number(p.next())
	case "clock":
		c.Kind, c.Clock.AdvanceMillis = kv.KindClock, signed(p.next())
		if p.more() {
			c.Clock.Prev = number(p.next())
		} else {
			c.Clock.Prev = p.clock()
		}
	case "grant":
		c.Kind, c.Lease.ID, c.Lease.TTLMillis = kv.KindLeaseGrant, leaseName(p.next()), signed(p.next())
		p.options(func(name, value string) bool {
			c.Lease.Number = signed(value)
			return name == "number"
		})
	case "renew", "requeue":
		c.Kind, c.Renew = kv.KindLeaseRenew, []kv.LeaseID{}
		if word == "requeue" {
			c.Kind = kv.KindLeaseRequeue
		}
		for p.more() {
			c.Renew = append(c.Renew, leaseName(p.next()))
		}
	case "revoke":
		c.Kind, c.Lease.ID = kv.KindLeaseRevoke, leaseName(p.next())
	case "expire":
		c.Kind, c.Lease.ID, c.Lease.Generation = kv.KindLeaseExpire, leaseName(p.next()), number(p.next())
	case "alarm":
		c.Kind, c.Alarm.Replica = kv.KindAlarm, number(p.next())
		c.Alarm.Type = kv.AlarmNoSpace
		if p.next() == kv.AlarmCorrupt.String() {
			c.Alarm.Type = kv.AlarmCorrupt
		}
		c.Alarm.Active = p.next() == "on"
	case "member":
		c.Kind, c.Member.Replica = kv.KindMember, number(p.next())
		m := &c.Member
		p.options(func(name, value string) bool {
			switch name {
			case "id":
				m.ID = leaseName(value)
			case "name":
				m.Name = string(text(value))
			case "version":
				m.Version = uint32(number(value))
			case "client":
				m.ClientURL = string(text(value))
			case "peer":
				m.PeerAddress = string(text(value))
			default:
				return false
			}
			return true
		})
	default:
		fail("unknown command %q", word)
	}
}

func (p *parser) txn() *kv.Txn {
	t := &kv.Txn{}
	if p.next() != "{" {
		fail("a transaction begins with {")
	}
	for p.skipEnds(); p.peek() != "}"; p.skipEnds() {
		switch word := p.next(); word {
		case "if":
			t.If = append(t.If, p.compare())
		case "then":
			t.Then = append(t.Then, p.operation())
		case "else":
			t.Else = append(t.Else, p.operation())
		default:
			fail("%q in a transaction", word)
		}
	}
	p.words = p.words[1:]
	return t
}

var (
	targetWords   = []string{kv.TargetValue: "value", kv.TargetVers: "version", kv.TargetCreate: "create", kv.TargetMod: "mod", kv.TargetLease: "lease"}
	operatorWords = []string{kv.Equal: "=", kv.NotEqual: "!=", kv.Greater: ">", kv.Less: "<", kv.GreaterOrEqual: ">=", kv.LessOrEqual: "<="}
	sortWords     = []string{kv.SortByKey: "key", kv.SortByVersion: "version", kv.SortByCreate: "create", kv.SortByMod: "mod", kv.SortByValue: "value"}
)

func indexOf(words []string, w string) int {
	for i := range words {
		if words[i] == w && w != "" {
			return i
		}
	}
	fail("%q is none of %q", w, words)
	return 0
}

func (p *parser) compare() kv.Compare {
	c := kv.Compare{Target: kv.Target(indexOf(targetWords, p.next())), Range: rangeOf(p.next())}
	c.Operator = kv.Operator(indexOf(operatorWords, p.next()))
	switch operand := p.next(); c.Target {
	case kv.TargetValue:
		c.Bytes = text(operand)
	case kv.TargetLease:
		c.Lease = leaseName(operand)
	default:
		c.Number = number(operand)
	}
	return c
}

func (p *parser) operation() kv.Op {
	switch word := p.next(); word {
	case "put":
		op := kv.Op{Type: kv.OpPut, Key: text(p.next()), Value: text(p.next())}
		p.options(func(name, value string) bool {
			switch name {
			case "lease":
				op.Lease = leaseName(value)
			case "own":
				op.OwnTTLMillis = signed(value)
			case "type":
				op.ContentType = string(text(value))
			case "prev":
				op.Prev = true
			case "sequence":
				op.Sequence = true
			case "ignore-value":
				op.IgnoreValue = true
			case "ignore-lease":
				op.IgnoreLease = true
			default:
				return false
			}
			return true
		})
		return op
	case "delete":
		op := kv.Op{Type: kv.OpDelete, Range: rangeOf(p.next())}
		p.options(func(name, _ string) bool {
			op.Prev = true
			return name == "prev"
		})
		return op
	case "increment":
		return kv.Op{Type: kv.OpIncrement, Key: text(p.next()), By: signed(p.next())}
	case "get":
		return kv.Op{Type: kv.OpGet, Query: p.query()}
	case "txn":
		return kv.Op{Type: kv.OpTxn, Txn: p.txn()}
	default:
		fail("unknown operation %q", word)
		return kv.Op{}
	}
}

func (p *parser) query() *kv.Query {
	q := &kv.Query{Range: rangeOf(p.next())}
	p.options(func(name, value string) bool {
		switch name {
		case "rev":
			q.Revision = number(value)
		case "limit":
			q.Limit = int(number(value))
		case "bytes":
			q.MaxBytes = int(number(value))
		case "after":
			q.After = text(value)
		case "delimiter":
			q.Delimiter = text(value)
		case "prefix-len":
			q.PrefixLen = int(number(value))
		case "sort":
			q.Sort = kv.SortTarget(indexOf(sortWords, value))
		case "min-mod":
			q.MinModRevision = number(value)
		case "max-mod":
			q.MaxModRevision = number(value)
		case "min-create":
			q.MinCreateRevision = number(value)
		case "max-create":
			q.MaxCreateRevision = number(value)
		case "descending":
			q.Descending = true
		case "keys-only":
			q.KeysOnly = true
		case "count":
			q.Count = true
		case "count-only":
			q.CountOnly = true
		default:
			return false
		}
		return true
	})
	return q
}

// The other direction: how commands and answers are printed.

// bare says that bytes need no quotes.
func bare(b []byte) bool {
	for _, c := range b {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || bytes.IndexByte([]byte("_/-+"), c) >= 0) {
			return false
		}
	}
	return len(b) > 0
}

func sayBytes(b []byte) string {
	switch {
	case len(b) > 40 && len(bytes.Trim(b, string(b[:1]))) == 0:
		return fmt.Sprintf("fill:%d:%s", len(b), sayBytes(b[:1]))
	case bare(b):
		return string(b)
	}
	return strconv.Quote(string(b))
}

func sayLease(id kv.LeaseID) string {
	name := bytes.TrimRight(id[:], "\x00")
	switch {
	case len(name) == 0:
		return "-"
	case bare(name):
		return string(name)
	}
	return id.String()
}

func sayRange(r kv.Range) string {
	if key, ok := r.Single(); ok {
		return sayBytes(key)
	}
	s := ".."
	if len(r.Start) > 0 {
		s = sayBytes(r.Start) + s
	}
	if len(r.End) > 0 {
		s += sayBytes(r.End)
	}
	return s
}

func sayCommand(c *kv.Command) string {
	var b strings.Builder
	word := func(on bool, format string, args ...any) {
		if on {
			fmt.Fprintf(&b, format+" ", args...)
		}
	}
	word(c.Time != 0, "@time=%d", c.Time)
	word(c.Principal != "", "@as=%s", sayBytes([]byte(c.Principal)))
	word(c.AuthRevision != 0, "@auth=%d", c.AuthRevision)
	word(c.IdempotencyKey != "", "@id=%s", sayBytes([]byte(c.IdempotencyKey)))
	word(c.Fingerprint != [16]byte{}, "@print=%s", sayBytes(bytes.TrimRight(c.Fingerprint[:], "\x00")))
	switch c.Kind {
	case kv.KindTxn:
		if t := c.Txn; len(t.If)+len(t.Else) == 0 && len(t.Then) == 1 && t.Then[0].Type != kv.OpTxn {
			b.WriteString(sayOp(&t.Then[0]))
		} else {
			b.WriteString(sayTxn(t))
		}
	case kv.KindCompact:
		fmt.Fprintf(&b, "compact %d", c.Compact)
	case kv.KindClock:
		fmt.Fprintf(&b, "clock %d %d", c.Clock.AdvanceMillis, c.Clock.Prev)
	case kv.KindLeaseGrant:
		fmt.Fprintf(&b, "grant %s %d", sayLease(c.Lease.ID), c.Lease.TTLMillis)
		if c.Lease.Number != 0 {
			fmt.Fprintf(&b, " number=%d", c.Lease.Number)
		}
	case kv.KindLeaseRenew, kv.KindLeaseRequeue:
		b.WriteString(map[bool]string{true: "renew", false: "requeue"}[c.Kind == kv.KindLeaseRenew])
		for _, id := range c.Renew {
			b.WriteString(" " + sayLease(id))
		}
	case kv.KindLeaseRevoke:
		fmt.Fprintf(&b, "revoke %s", sayLease(c.Lease.ID))
	case kv.KindLeaseExpire:
		fmt.Fprintf(&b, "expire %s %d", sayLease(c.Lease.ID), c.Lease.Generation)
	case kv.KindAlarm:
		fmt.Fprintf(&b, "alarm %d %s %s", c.Alarm.Replica, c.Alarm.Type, map[bool]string{true: "on", false: "off"}[c.Alarm.Active])
	case kv.KindMember:
		m := &c.Member
		fmt.Fprintf(&b, "member %d id=%s name=%s version=%d client=%s peer=%s", m.Replica, sayLease(m.ID),
			sayBytes([]byte(m.Name)), m.Version, sayBytes([]byte(m.ClientURL)), sayBytes([]byte(m.PeerAddress)))
	}
	return b.String()
}

func sayTxn(t *kv.Txn) string {
	var parts []string
	for i := range t.If {
		c := &t.If[i]
		operand := strconv.FormatUint(c.Number, 10)
		switch c.Target {
		case kv.TargetValue:
			operand = sayBytes(c.Bytes)
		case kv.TargetLease:
			operand = sayLease(c.Lease)
		}
		parts = append(parts, fmt.Sprintf("if %s %s %s %s", targetWords[c.Target], sayRange(c.Range), operatorWords[c.Operator], operand))
	}
	for i := range t.Then {
		parts = append(parts, "then "+sayOp(&t.Then[i]))
	}
	for i := range t.Else {
		parts = append(parts, "else "+sayOp(&t.Else[i]))
	}
	return "txn { " + strings.Join(parts, "; ") + " }"
}

func sayOp(op *kv.Op) string {
	var b strings.Builder
	word := func(on bool, format string, args ...any) {
		if on {
			fmt.Fprintf(&b, " "+format, args...)
		}
	}
	switch op.Type {
	case kv.OpPut:
		fmt.Fprintf(&b, "put %s %s", sayBytes(op.Key), sayBytes(op.Value))
		word(op.Lease != kv.LeaseID{}, "lease=%s", sayLease(op.Lease))
		word(op.OwnTTLMillis != 0, "own=%d", op.OwnTTLMillis)
		word(op.ContentType != "", "type=%s", sayBytes([]byte(op.ContentType)))
		word(op.Prev, "prev")
		word(op.IgnoreValue, "ignore-value")
		word(op.IgnoreLease, "ignore-lease")
		word(op.Sequence, "sequence")
	case kv.OpDelete:
		fmt.Fprintf(&b, "delete %s", sayRange(op.Range))
		word(op.Prev, "prev")
	case kv.OpIncrement:
		fmt.Fprintf(&b, "increment %s %d", sayBytes(op.Key), op.By)
	case kv.OpGet:
		q := op.Query
		fmt.Fprintf(&b, "get %s", sayRange(q.Range))
		for _, n := range []struct {
			name  string
			value uint64
		}{
			{"rev", q.Revision}, {"limit", uint64(q.Limit)}, {"bytes", uint64(q.MaxBytes)}, {"prefix-len", uint64(q.PrefixLen)},
			{"min-mod", q.MinModRevision}, {"max-mod", q.MaxModRevision},
			{"min-create", q.MinCreateRevision}, {"max-create", q.MaxCreateRevision},
		} {
			word(n.value != 0, "%s=%d", n.name, n.value)
		}
		word(len(q.After) > 0, "after=%s", sayBytes(q.After))
		word(len(q.Delimiter) > 0, "delimiter=%s", sayBytes(q.Delimiter))
		word(q.Sort != kv.SortByKey, "sort=%s", sortWords[q.Sort])
		word(q.Descending, "descending")
		word(q.KeysOnly, "keys-only")
		word(q.Count, "count")
		word(q.CountOnly, "count-only")
	case kv.OpTxn:
		return sayTxn(op.Txn)
	}
	return b.String()
}

// sayResult prints an answer: on one line if it is short, else an operation a
// line.
func sayResult(r *kv.Result) string {
	if r == nil {
		return "applied before"
	}
	var b strings.Builder
	if r.Code != kv.OK {
		fmt.Fprintf(&b, "refused: %s: %s", r.Code, r.Detail)
	} else {
		fmt.Fprintf(&b, "r%d", r.Revision)
		if r.CompactRevision != 0 {
			fmt.Fprintf(&b, " compact=%d", r.CompactRevision)
		}
		if r.Changed {
			b.WriteString(" changed")
		}
		if r.Succeeded && r.Ops == nil {
			b.WriteString(" succeeded")
		}
	}
	if r.Elided {
		b.WriteString(" elided")
	}
	if r.Replayed {
		b.WriteString(" replayed")
	}
	for i := range r.Leases {
		l := &r.Leases[i]
		fmt.Fprintf(&b, " lease %s", sayLease(l.ID))
		if l.Code != kv.OK {
			fmt.Fprintf(&b, " %s", l.Code)
		} else {
			fmt.Fprintf(&b, " ttl=%d", l.TTLMillis)
		}
	}
	return b.String() + sayOps(r, "  ")
}

func sayOps(r *kv.Result, indent string) string {
	var b strings.Builder
	for i := range r.Ops {
		b.WriteString("\n" + indent + sayOpResult(&r.Ops[i], indent))
	}
	return b.String()
}

func sayOpResult(o *kv.OpResult, indent string) string {
	var b strings.Builder
	created := map[bool]string{true: " created"}[o.Created]
	switch o.Type {
	case kv.OpPut:
		fmt.Fprintf(&b, "put v%d%s", o.Version, created)
		if o.Lease != (kv.LeaseID{}) {
			fmt.Fprintf(&b, " lease=%s", sayLease(o.Lease))
		}
	case kv.OpIncrement:
		fmt.Fprintf(&b, "increment to %d v%d%s", o.Value, o.Version, created)
	case kv.OpDelete:
		fmt.Fprintf(&b, "deleted %d", o.Deleted)
	case kv.OpGet:
		return sayList(o.List, indent)
	case kv.OpTxn:
		return map[bool]string{true: "then", false: "else"}[o.Txn.Succeeded] + sayOps(o.Txn, indent+"  ")
	}
	for i := range o.Prev {
		b.WriteString("\n" + indent + "  was " + sayEntry(&o.Prev[i]))
	}
	return b.String()
}

func sayList(l *kv.List, indent string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "at r%d", l.Revision)
	if l.Count != 0 {
		fmt.Fprintf(&b, " count=%d", l.Count)
	}
	if l.More {
		fmt.Fprintf(&b, " more")
	}
	if l.Next != nil {
		fmt.Fprintf(&b, " next=%s", sayBytes(l.Next))
	}
	for i := range l.Entries {
		b.WriteString("\n" + indent + "  " + sayEntry(&l.Entries[i]))
	}
	for _, p := range l.CommonPrefixes {
		b.WriteString("\n" + indent + "  " + sayBytes(p) + "*")
	}
	return b.String()
}

func sayEntry(e *kv.Entry) string {
	var b strings.Builder
	b.WriteString(sayBytes(e.Key))
	if e.Value != nil {
		b.WriteString(" = " + sayBytes(e.Value))
	}
	fmt.Fprintf(&b, " (c%d m%d v%d", e.CreateRevision, e.ModRevision, e.Version)
	if e.Lease != (kv.LeaseID{}) {
		fmt.Fprintf(&b, " lease=%s", sayLease(e.Lease))
	}
	if e.ContentType != "" {
		fmt.Fprintf(&b, " %s", e.ContentType)
	}
	if e.ModifiedAt != 0 {
		fmt.Fprintf(&b, " t%d", e.ModifiedAt)
	}
	return b.String() + ")"
}

func sayEvent(e *kv.Event) string {
	what := sayEntry(&e.Entry)
	if e.Type == kv.EventDelete {
		what = fmt.Sprintf("%s %s (m%d)", sayBytes(e.Entry.Key), e.Reason, e.Entry.ModRevision)
	}
	if e.PrevRevision != 0 {
		what += fmt.Sprintf(" after r%d", e.PrevRevision)
	}
	return what
}

// What the generator of random histories makes can be said and read again.
func TestLanguage(t *testing.T) {
	g := newGenerator(1, 10)
	for range 2_000 {
		c := g.command()
		said := sayCommand(c)
		again, err := parseCommands(said, nil)
		if err != nil || len(again) != 1 {
			t.Fatalf("%s\nis not one command: %v", said, err)
		}
		if !bytes.Equal(kv.AppendCommand(nil, c), kv.AppendCommand(nil, again[0])) {
			t.Fatalf("%s\nwas read as\n%s", said, sayCommand(again[0]))
		}
	}
}
