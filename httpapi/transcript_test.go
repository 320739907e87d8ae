package httpapi

import (
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/oklog/ulid/v2"

	"github.com/cairnkv/cairn/kv"
)

// TestTranscripts runs the conversations of testdata. A request is written as it
// travels, the answer as it came, with what differs from run to run masked:
//
//	http             the request that follows; with "escaped" its body is Go's
//	                 string syntax, with "quiet" only the status is shown
//	clock 5s         moves the clock
//	fail CALL CODE   makes Propose, Wait or both fail; "fail off" ends it. With
//	                 "afterwards" the command is applied nevertheless
//	alarm TYPE       raises an alarm of this member
//	grant            grants the lease that $granted stands for
//	expire           lets the leases end whose time the replicated clock reached
//	ready yes|no     says what Ready says
//
// In a request, $cursor and $lease stand for what the last answer gave.
func TestTranscripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) { runTranscript(t, path) })
	}
}

func runTranscript(t *testing.T, path string) {
	tr := &transcript{kit: newKit(t)}
	tr.member.apply(t, &kv.Command{Kind: kv.KindMember, Member: kv.Member{
		Replica: 1, ID: testMember, Name: "n1", Version: kv.Version, ClientURL: "http://127.0.0.1:7480", PeerAddress: "127.0.0.1:7481",
	}})
	datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
		tr.t = t
		return tr.run(d)
	})
}

type transcript struct {
	*kit
	cursor, lease string
	clockIndex    uint64
}

var grantedLease = ulid.MustParse("01KB00000000000000000000GR")

func (tr *transcript) run(d *datadriven.TestData) string {
	word := func(i int) string {
		if i < len(d.CmdArgs) {
			return d.CmdArgs[i].Key
		}
		return ""
	}
	switch d.Cmd {
	case "http":
		return tr.http(d)
	case "clock":
		duration, err := time.ParseDuration(word(0))
		if err != nil {
			d.Fatalf(tr.t, "%v", err)
		}
		tr.clock.advance(duration)
	case "fail":
		tr.fail(word(0), word(1), word(2) == "afterwards")
	case "alarm":
		types := map[string]kv.AlarmType{"no-space": kv.AlarmNoSpace, "corrupt": kv.AlarmCorrupt}
		tr.member.apply(tr.t, &kv.Command{Kind: kv.KindAlarm, Alarm: kv.Alarm{Replica: 1, Type: types[word(0)], Active: true}})
	case "grant":
		tr.member.apply(tr.t, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: grantedLease, Number: 7, TTLMillis: 10_000}})
	case "expire":
		tr.expire()
	case "ready":
		tr.member.notReady.Store(false)
		if word(0) == "no" {
			tr.member.notReady.Store(true)
		}
	default:
		d.Fatalf(tr.t, "unknown command %s", d.Cmd)
	}
	return ""
}

// fail makes calls of the store fail.
func (tr *transcript) fail(call, code string, afterwards bool) {
	m := tr.member
	m.proposing, m.waiting, m.afterwards = nil, nil, afterwards
	var failure *kv.Error
	for _, c := range kv.Codes() {
		if c.String() == code {
			failure = kv.Errorf(c, "made to fail")
		}
	}
	if call == "propose" || call == "both" {
		m.proposing = func(*kv.Command) error { return failure }
	}
	if call == "wait" || call == "both" {
		m.waiting = func(kv.Consistency) error { return failure }
	}
}

// expire advances the replicated clock by two minutes and ends the leases that are
// due, as a leader does.
func (tr *transcript) expire() {
	for range 240 {
		r := &kv.Command{Kind: kv.KindClock, Clock: kv.Clock{Prev: tr.clockIndex, AdvanceMillis: kv.MaxClockAdvanceMillis}}
		tr.member.apply(tr.t, r)
		tr.clockIndex = tr.member.index
	}
	tr.member.apply(tr.t, &kv.Command{
		Kind: kv.KindLeaseExpire, Time: tr.clock.Now().UnixMilli(), Lease: kv.Lease{ID: ulid.MustParse(tr.lease)},
	})
}

var (
	ulidPattern = regexp.MustCompile(`\b01[0-9A-HJKMNP-TV-Z]{24}\b`)
	// numberPattern finds the numbers that are derived from ids; those that a
	// request chose are shorter.
	numberPattern = regexp.MustCompile(`"number":"\d{12,19}"`)
	cursorPattern = regexp.MustCompile(`\bAQ[A-Za-z0-9_-]{50,}`)
)

func (tr *transcript) http(d *datadriven.TestData) string {
	head, body, hasBody := strings.Cut(d.Input, "\n\n")
	lines := strings.Split(strings.TrimRight(head, "\n"), "\n")
	method, target, ok := strings.Cut(tr.fill(lines[0]), " ")
	if !ok {
		d.Fatalf(tr.t, "want a method and a target")
	}
	var sent []byte
	if hasBody {
		body = tr.fill(body)
		if d.HasArg("escaped") {
			var err error
			if body, err = strconv.Unquote(`"` + body + `"`); err != nil {
				d.Fatalf(tr.t, "%v", err)
			}
		}
		sent = []byte(body)
	}
	headers := lines[1:]
	for i := range headers {
		headers[i] = tr.fill(headers[i])
	}
	return tr.show(tr.do(method, target, sent, headers...), d.HasArg("quiet"))
}

func (tr *transcript) fill(s string) string {
	return strings.NewReplacer("$cursor", tr.cursor, "$lease", tr.lease, "$granted", grantedLease.String()).Replace(s)
}

// show writes an answer down.
func (tr *transcript) show(a *answer, quiet bool) string {
	if c := cursorPattern.FindString(string(a.body)); c != "" {
		tr.cursor = c
	}
	if l := a.Header.Get("Cairn-Lease"); l != "" {
		tr.lease = l
	} else if a.StatusCode < 300 {
		for _, id := range ulidPattern.FindAllString(string(a.body), -1) {
			if !strings.HasPrefix(id, "01KB0") {
				tr.lease = id
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s\n", a.StatusCode, http.StatusText(a.StatusCode))
	if quiet {
		return b.String()
	}
	for _, name := range slices.Sorted(mapKeys(a.Header)) {
		if name == "Date" || name == "Content-Length" && a.Request.Method != http.MethodHead {
			continue
		}
		for _, value := range a.Header[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	body := string(a.body)
	if body != "" && !strings.HasSuffix(body, "\n") {
		body += "\n"
	}
	for line := range strings.Lines(body) {
		if strings.ContainsFunc(line, func(r rune) bool { return r != '\n' && !strconv.IsPrint(r) }) {
			line = strconv.Quote(line) + "\n"
		}
		b.WriteString(line)
	}
	masked := ulidPattern.ReplaceAllStringFunc(b.String(), func(id string) string {
		if strings.HasPrefix(id, "01KB0") {
			return id
		}
		return "<ulid>"
	})
	masked = numberPattern.ReplaceAllString(masked, `"number":"<number>"`)
	return cursorPattern.ReplaceAllString(masked, "<cursor>")
}

func mapKeys[V any](m map[string]V) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
