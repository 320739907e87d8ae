package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// A bulk write is a stream of lines that becomes a sequence of transactions. One
// is on its way while the lines of the next are read, and never more: if several
// were, one could fail while a later one is applied, and "the first n lines are
// applied" could not be said.
//
// Where a transaction ends depends on the lines alone. So the same body sent
// again under the same Idempotency-Key makes the same transactions, and those
// that were applied are not applied again. Under such a key the lines of a
// transaction that did not all come are therefore not applied: with the rest of
// them it would be another one.

// bulkKeyBytes bounds the Idempotency-Key of a bulk write, which is followed by a
// slash and the number of the transaction.
const bulkKeyBytes = kv.MaxIdempotencyKeyBytes - 1 - 20

const (
	// bulkPatience is how long a bulk write waits for the disk, and bulkLook how
	// often it looks.
	bulkPatience = time.Minute
	bulkLook     = 20 * time.Millisecond
)

// reportEvery is how often a running bulk write says how far it is.
const reportEvery = time.Second

// bulk answers POST /v1/kv. From the first line on the answer is a 200 that ends
// with a line which says what was applied.
func (x *exchange) bulk() {
	if x.refused() {
		return
	}
	x.bodyBegun = true
	// Lines are answered while others still arrive.
	_ = http.NewResponseController(x.w).EnableFullDuplex()
	b := &bulkWrite{
		x:      x,
		lines:  lineReader{x: x, body: x.r.Body},
		report: x.began,
		// The chunk in flight reports here; one slot, so that it never waits.
		answers: make(chan bulkAnswer, 1),
	}
	b.runUntilDrained()
	b.leave()
}

// runUntilDrained runs the write, and lets it end early when the node is about to stop.
func (b *bulkWrite) runUntilDrained() {
	over := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-b.x.s.draining:
			b.lines.stop()
		case <-over:
		}
	})
	b.run()
	close(over)
	watch.Wait()
}

// leave ends the connection of a write that has not read its body to the end, as the
// client may go on with it for long. net/http, which lets the answer and the body go
// on beside each other here, would take what comes later for the next request.
func (b *bulkWrite) leave() {
	x := b.x
	if b.lines.err == io.EOF || x.r.ProtoMajor != 1 || x.hearOut() {
		return
	}
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // ends it as well
	}
	defer conn.Close()
	if x.r.ProtoMinor > 0 {
		if _, err := io.WriteString(conn, lastChunk); err != nil {
			return
		}
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = conn.SetReadDeadline(time.Now().Add(linger))
	_, _ = io.Copy(io.Discard, conn)
}

type bulkWrite struct {
	x     *exchange
	lines lineReader
	// chunks counts the transactions that were proposed.
	chunks int
	// Of the lines so far: how many were applied, with the blank ones before the last
	// of them, and at which revision.
	applied, revision uint64
	started           bool
	report            time.Time
	answers           chan bulkAnswer
}

// A bulkChunk is the lines of one transaction.
type bulkChunk struct {
	ops    []kv.Op
	bytes  int    // of the lines
	last   uint64 // the number of the last line
	keys   map[string]struct{}
	digest [sha256.Size]byte
}

// lineMemory is what a line takes besides its bytes, about.
const lineMemory = 256

// memory is what the chunk takes of it.
func (c *bulkChunk) memory() int { return c.bytes + len(c.ops)*lineMemory }

type bulkAnswer struct {
	result *kv.Result
	err    error
}

// run reads, proposes and reports until the lines end or something fails.
func (b *bulkWrite) run() {
	var inFlight *bulkChunk
	for {
		chunk, failed := b.read()
		if inFlight != nil && !b.settle(inFlight) {
			return
		}
		inFlight = nil
		if b.lines.broken && b.x.idempotency != "" {
			// Those of the transaction that did not all come are not applied either.
			b.x.fault.detail = linesFrom(b.applied+1) + b.lines.why
			b.finish(0)
			return
		}
		if len(chunk.ops) > 0 {
			later := b.x.fault // of a line behind the transaction
			b.x.fault = fault{}
			if !b.await() {
				b.finish(0)
				return
			}
			b.x.fault = later
			inFlight = chunk
			b.propose(chunk)
		}
		if failed || len(chunk.ops) == 0 {
			// Nothing more will be proposed. A fault of a line is told after
			// what stands before it is applied.
			last := b.x.fault
			if inFlight != nil && !b.settle(inFlight) {
				return
			}
			b.x.fault = last
			b.finish(0)
			return
		}
	}
}

// read reads the lines of one transaction. It returns true if there is a line
// that can't be applied, which is then reported to the exchange.
func (b *bulkWrite) read() (chunk *bulkChunk, failed bool) {
	chunk = &bulkChunk{keys: map[string]struct{}{}}
	hash := sha256.New() // by which a repetition is known
	for len(chunk.ops) < kv.MaxBulkOps {
		line, ok := b.lines.next()
		if !ok {
			failed = b.x.fault.code != ""
			break
		}
		if len(chunk.ops) > 0 && chunk.bytes+len(line) > bulkChunkBytes {
			b.lines.unread()
			break
		}
		op, ok := b.parse(line)
		if !ok {
			failed = true
			break
		}
		if op.repeats(chunk.keys) {
			b.lines.unread()
			break
		}
		chunk.ops = append(chunk.ops, op.Op)
		chunk.bytes += len(line)
		chunk.last = b.lines.count
		b.lines.kept += len(line) + lineMemory
		if b.x.idempotency != "" {
			_, _ = hash.Write(line)
			_, _ = hash.Write([]byte{'\n'})
		}
	}
	hash.Sum(chunk.digest[:0])
	return chunk, failed
}

// A lineOp is the operation of one line.
type lineOp struct{ kv.Op }

// repeats reports whether the operation writes a key that is in keys, and puts
// it there.
func (o *lineOp) repeats(keys map[string]struct{}) bool {
	key := o.Key
	if o.Type == kv.OpDelete {
		key, _ = o.Range.Single()
	}
	if _, ok := keys[string(key)]; ok {
		return true
	}
	keys[string(key)] = struct{}{}
	return false
}

// parse reads one line. The operation shares the memory of the line.
func (b *bulkWrite) parse(line []byte) (op lineOp, ok bool) {
	r := txnReader{x: b.x}
	b.x.parseJSON(line, func(p *jsonParser) {
		r.p = p
		op.Op, _ = r.operation("a line", false)
	})
	if b.x.fault.code == "" {
		return op, true
	}
	b.x.fault.detail = "line " + strconv.FormatUint(b.lines.count, 10) + ": " + b.x.fault.detail
	return op, false
}

// await returns when the node's disk has caught up with the writes: a bulk load is
// as fast as that, and does not make all other writes wait for it. It returns false
// after a long time, when the client is gone, or when this node is about to stop.
func (b *bulkWrite) await() bool {
	x := b.x
	if b.lines.stopped() {
		b.stop()
		return false
	}
	if !x.s.cfg.Store.Behind() {
		return true
	}
	over := time.NewTimer(x.s.bulkPatience)
	defer over.Stop()
	again := time.NewTicker(bulkLook)
	defer again.Stop()
	for x.s.cfg.Store.Behind() {
		select {
		case <-again.C:
			b.tell()
		case <-over.C:
			x.fail(api.CodeBusy, "%sthe disk of this node has been behind for %s; send them again later, and more slowly", linesFrom(b.applied+1), x.s.bulkPatience)
			return false
		case <-x.s.draining:
			b.stop()
			return false
		case <-x.r.Context().Done():
			x.fail(api.CodeUnavailable, "the request has ended")
			return false
		}
	}
	return true
}

// stop reports that this node is about to stop.
func (b *bulkWrite) stop() {
	b.x.fail(api.CodeShuttingDown, "%s%s", linesFrom(b.applied+1), aboutToStop)
}

const aboutToStop = "this member is about to stop; send them to another one"

// tell says how far the write is, if that was not said recently.
func (b *bulkWrite) tell() {
	if now := b.x.s.cfg.Now(); b.applied > 0 && now.Sub(b.report) >= reportEvery {
		b.report = now
		b.write(appendReport(b.x.out[:0], b.applied, b.revision))
	}
}

// propose sends a transaction on its way. Its outcome arrives at b.answers; the
// goroutine ends with Propose, which ends with the request.
func (b *bulkWrite) propose(chunk *bulkChunk) {
	x := b.x
	b.chunks++
	command := &kv.Command{Kind: kv.KindTxn, Time: x.s.cfg.Now().UnixMilli(), Txn: x.fences.around(&kv.Txn{Then: chunk.ops})}
	if x.idempotency != "" {
		command.IdempotencyKey = x.idempotency + "/" + strconv.Itoa(b.chunks)
		command.Fingerprint = x.fingerprint(chunk.digest[:])
	}
	go func(ctx context.Context, store Store, answers chan<- bulkAnswer) {
		result, err := store.Propose(ctx, command)
		answers <- bulkAnswer{result, err}
	}(x.r.Context(), x.s.cfg.Store, b.answers)
}

// settle waits for the outcome of the transaction in flight. It returns false
// when it failed and the last line is written.
func (b *bulkWrite) settle(chunk *bulkChunk) bool {
	x := b.x
	answer := <-b.answers
	b.lines.kept -= chunk.memory()
	first, last := b.applied+1, chunk.last
	switch {
	case answer.err != nil:
		x.fault = writeFault(answer.err)
	case answer.result.Code != kv.OK:
		x.fault = resultFault(answer.result)
	case !x.fences.held(answer.result):
		x.fault = staleFault()
	default:
		b.applied, b.revision = last, answer.result.Revision
		b.tell()
		return true
	}
	where := "line " + strconv.FormatUint(first, 10)
	if last > first {
		where = "lines " + strconv.FormatUint(first, 10) + " to " + strconv.FormatUint(last, 10)
	}
	x.fault.detail = where + ": " + x.fault.detail
	unknown := uint64(0)
	if x.fault.code == api.CodeOutcomeUnknown {
		unknown = last - b.applied
	}
	b.finish(unknown)
	return false
}

// finish writes the last line.
func (b *bulkWrite) finish(unknown uint64) {
	x := b.x
	out := appendReport(x.out[:0], b.applied, b.revision)
	out = appendBool(out[:len(out)-2], `,"done":`, x.fault.code == "")
	if unknown > 0 {
		out = appendUint(out, `,"outcome_unknown_lines":`, unknown)
	}
	if x.fault.code != "" {
		info, _ := x.fault.code.Info()
		x.countShed()
		out = append(out, `,"error":`...)
		out = appendProblem(out, &x.fault, info, x.id())
	}
	b.write(append(out, '}', '\n'))
}

func appendReport(b []byte, applied, revision uint64) []byte {
	b = appendUint(b, `{"applied":`, applied)
	b = appendUint(b, `,"revision":`, revision)
	return append(b, '}', '\n')
}

// write sends a line at once.
func (b *bulkWrite) write(line []byte) {
	x := b.x
	x.out = line
	if !b.started {
		b.started = true
		h := x.w.Header()
		h["Content-Type"] = valueNDJSON
		h["Cache-Control"] = valueNoStore
		h["X-Content-Type-Options"] = valueNosniff
		revision := b.revision
		if revision == 0 {
			revision, _ = x.s.cfg.Store.Revisions()
		}
		x.writeHeader(200, revision)
	}
	if x.writeBody(line) == nil {
		_ = x.flush() // who is gone is noticed by what it does not send
	}
}

// A lineReader cuts a body into lines of at most maxBodyBytes. Each line has
// memory of its own, since what is read from it lives until its transaction is
// answered. Blank lines are counted and not given out.
type lineReader struct {
	x    *exchange
	body io.Reader
	// buf[from:] was read and not given out yet.
	buf  []byte
	from int
	err  error
	// count is the number of the line that was given, or passed over, last.
	count  uint64
	last   []byte
	reread bool
	// kept is the memory of lines that were given out and are still needed.
	kept int
	// over says that the node is about to stop: no line is waited for any more. Under the
	// lock, so that a deadline that is set later does not take back that of stop.
	mu   sync.Mutex
	over bool
	// broken says that it ended otherwise than at the end of the body or at a line
	// that is wrong, and why: sent again, the same body may go on.
	broken bool
	why    string
}

// stop ends the wait for lines.
func (l *lineReader) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.x.readDeadline(time.Nanosecond)
}

func (l *lineReader) stopped() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// deadline bounds the reading of lines from now on; 0 lifts the bound.
func (l *lineReader) deadline(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.x.readDeadline(d)
	}
}

// breakOff ends the lines before the next one, for the reason that was reported.
func (l *lineReader) breakOff() {
	l.broken, l.why = true, l.x.fault.detail
	l.x.fault.detail = linesFrom(l.count+1) + l.why
}

func linesFrom(n uint64) string { return fmt.Sprintf("the lines from %d on: ", n) }

// next gives the next line that is not blank, without its end. It returns false at the
// end of the body and for a line that can't be read, which is then reported. Blank ones
// take of the time that the line has to arrive: a client that sends nothing else is no
// better than one that sends nothing.
func (l *lineReader) next() ([]byte, bool) {
	if l.reread {
		l.reread = false
		l.count++
		return l.last, true
	}
	searched := l.from
	armed := false
	defer func() {
		if armed {
			l.deadline(0) // what is done with the line takes its own time
		}
	}()
	for {
		if i := bytes.IndexByte(l.buf[searched:], '\n'); i >= 0 {
			if l.pass(searched+i, searched+i+1) {
				searched = l.from
				continue
			}
			return l.give(searched+i, searched+i+1)
		}
		searched = len(l.buf)
		if len(l.buf)-l.from > maxBodyBytes {
			l.x.failLimit(api.CodeRequestTooLarge, maxBodyBytes, "line %d: a line has at most %d bytes", l.count+1, maxBodyBytes)
			return nil, false
		}
		if l.err != nil {
			if l.err != io.EOF {
				if l.stopped() {
					l.x.fail(api.CodeShuttingDown, aboutToStop)
				} else {
					l.x.failBody(l.err)
				}
				l.breakOff()
				return nil, false
			}
			if l.from < len(l.buf) && !l.pass(len(l.buf), len(l.buf)) {
				return l.give(len(l.buf), len(l.buf))
			}
			return nil, false
		}
		if !armed {
			armed = true
			l.deadline(l.x.s.cfg.BodyTimeout)
		}
		searched -= l.from
		if !l.fill() {
			return nil, false
		}
		searched += l.from
	}
}

// pass passes over the line that ends at end if it is blank.
func (l *lineReader) pass(end, from int) bool {
	line := l.buf[l.from:end]
	if len(line) > maxBodyBytes || len(bytes.TrimLeft(line, " \t\r")) > 0 {
		return false
	}
	l.from = from
	l.count++
	return true
}

// give hands out the line that ends at end.
func (l *lineReader) give(end, from int) ([]byte, bool) {
	line := bytes.TrimSuffix(l.buf[l.from:end], []byte{'\r'})
	l.from = from
	l.count++
	if len(line) > maxBodyBytes {
		l.x.failLimit(api.CodeRequestTooLarge, maxBodyBytes, "line %d: a line has at most %d bytes", l.count, maxBodyBytes)
		return nil, false
	}
	l.last = bytes.Clone(line)
	return l.last, true
}

// unread makes next give the last line again.
func (l *lineReader) unread() {
	l.reread = true
	l.count--
}

const (
	// lineBytes is the buffer of a body of which little has come, readBytes the one
	// after that.
	lineBytes = 4 << 10
	readBytes = 64 << 10
)

// fill reads more into the buffer, after moving what is left to its front. It returns
// false if there is no memory for that, which is then reported.
func (l *lineReader) fill() bool {
	if l.from > 0 {
		l.buf = l.buf[:copy(l.buf, l.buf[l.from:])]
		l.from = 0
	}
	n := cap(l.buf)
	switch {
	case n == 0:
		n = lineBytes
	case n == lineBytes && len(l.buf) > lineBytes/2, n >= readBytes && n-len(l.buf) < readBytes/2:
		n = max(readBytes, 2*n)
	}
	if !l.x.reserveLines(n + l.kept) {
		l.x.failMemory(maxHeldLineBytes, "large bulk writes take all the memory that there is for them on this node")
		l.breakOff()
		return false
	}
	if n > cap(l.buf) {
		l.buf = append(make([]byte, 0, n), l.buf...)
	}
	n, err := l.body.Read(l.buf[len(l.buf):cap(l.buf)])
	l.buf, l.err = l.buf[:len(l.buf)+n], err
	return true
}
