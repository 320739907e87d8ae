package robustness

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFencing lets holders lose their locks without knowing it, and act as if
// they had them, while the leader is stopped, nodes are killed or cut off, and
// all are restarted.
func TestFencing(t *testing.T) {
	beside(t)
	Judge(t, FenceScenario{
		Layout: Layout{Size: 3, Relayed: true}, Rounds: rounds(4, 24), Faults: []Fault{PauseLeader, KillNine, Terminate, Partition}, Seed: Seed(t),
	}.Run(t))
}

// soundFences is a small record that is right: token 2, then token 5, whose
// holder writes at 6 and loses the lock at 7.
func soundFences() *FenceTrace {
	key := holderKey("l")
	return &FenceTrace{
		Held: []Holding{{Lock: "l", Token: 2, Sent: 1, Answered: 2}, {Lock: "l", Token: 5, Sent: 10, Answered: 30}},
		Writes: []FencedWrite{
			{Lock: "l", Token: 2, Key: "f/1", Route: "put", Sent: 3, Answered: 4, Status: 201, Outcome: Done, Revision: 3},
			{Lock: "l", Token: 2, Key: "f/2", Route: "put", Sent: 40, Answered: 41, Status: 412, Code: fenceStale, Outcome: Refused},
			{Lock: "l", Token: 5, Key: "f/1", Route: "delete", Deletes: true, Sent: 42, Answered: 43, Status: 200, Outcome: Done, Revision: 6},
			{Lock: "l", Token: 2, Key: "f/3", Route: "put", Sent: 44, Answered: 45, Outcome: Unknown},
		},
		Holders: []LeaseChange{
			{Key: key, Revision: 2}, {Key: key, Revision: 4, Delete: true}, {Key: key, Revision: 5}, {Key: key, Revision: 7, Delete: true},
		},
		Changes: []LeaseChange{{Key: "f/1", Revision: 3}, {Key: "f/1", Revision: 6, Delete: true}},
	}
}

// TestFenceChecks makes a record wrong in one way after the other, and wants each
// noticed.
func TestFenceChecks(t *testing.T) {
	judged := func(f *FenceTrace) []string {
		_, wrong := f.Fences()
		return append(wrong, f.Tokens()...)
	}
	if wrong := judged(soundFences()); len(wrong) > 0 {
		t.Fatalf("a record that is right: %v", wrong)
	}
	if stale, _ := soundFences().Fences(); stale != 1 {
		t.Errorf("%d stale writes, want 1", stale)
	}
	tests := map[string]struct {
		spoil func(f *FenceTrace)
		want  string
	}{
		"applied with an old token":        {func(f *FenceTrace) { f.Changes = append(f.Changes, LeaseChange{Key: "f/3", Revision: 6}) }, "when the holder was 5"},
		"applied while nobody holds":       {func(f *FenceTrace) { f.Changes = append(f.Changes, LeaseChange{Key: "f/3", Revision: 8}) }, "when the holder was 0"},
		"an old token is answered with OK": {func(f *FenceTrace) { f.Writes[1].Status, f.Writes[1].Code = 200, "" }, "was not refused as stale"},
		"an old token fails otherwise":     {func(f *FenceTrace) { f.Writes[1].Code = "condition-failed" }, "was not refused as stale"},
		"refused and applied":              {func(f *FenceTrace) { f.Changes = append(f.Changes, LeaseChange{Key: "f/2", Revision: 6}) }, "took effect at revision 6"},
		"acknowledged and lost":            {func(f *FenceTrace) { f.Changes = f.Changes[:1] }, "the answer says 6"},
		"a token again":                    {func(f *FenceTrace) { f.Held[1].Token = 2 }, "token 2 and then token 2"},
		"a token that shrinks":             {func(f *FenceTrace) { f.Held[0].Token, f.Held[1].Token = 5, 2 }, "token 5 and then token 2"},
		"a token that is no revision":      {func(f *FenceTrace) { f.Held[1].Token = 6 }, "is not the revision of a holder"},
	}
	for name, test := range tests {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			trace := soundFences()
			test.spoil(trace)
			if wrong := judged(trace); !slices.ContainsFunc(wrong, func(w string) bool { return strings.Contains(w, test.want) }) {
				t.Errorf("want a complaint with %q, got %q", test.want, wrong)
			}
		})
	}
}

// seeded makes the random choices of a test that needs no scenario.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	return rand.New(rand.NewPCG(Seed(t), 0))
}

// startCluster starts nodes, three if nothing else is said, for a test that needs
// no scenario.
func startCluster(t *testing.T, size int) (*Cluster, *HTTP) {
	t.Helper()
	c := NewCluster(t, NewEvidence(t), seeded(t), Layout{Size: size})
	must(t, c.Start())
	h := NewHTTP()
	t.Cleanup(h.Close)
	return c, h
}

// TestForgery tries to make, change and end holders by writing their keys, on
// every route that writes and in every place of a transaction.
func TestForgery(t *testing.T) {
	beside(t)
	c, h := startCluster(t, 1)
	n := c.Nodes[0]
	lock := h.Do(n, jsonRequest(http.MethodPost, "/v1/locks/forge", `{"ttl_seconds":600}`))
	must(t, lock.explain())
	lease := h.Do(n, jsonRequest(http.MethodPost, "/v1/leases", `{"id":"01KB0000000000000000000000","ttl_seconds":600}`))
	must(t, lease.explain())
	holder := holderKey("forge")
	coded := base64.URLEncoding.EncodeToString([]byte(holder))
	put, del := fmt.Sprintf(`{"put":{"key":%q,"value":"{}"}}`, holder), fmt.Sprintf(`{"delete":{"key":%q}}`, holder)
	txn := func(body string, args ...any) Request {
		return jsonRequest(http.MethodPost, "/v1/txn", body, args...)
	}
	bulk := func(line string) Request { return bulkRequest("%s", line) }
	raw := func(method, path string) Request { return Request{Method: method, Path: path, Body: []byte("{}")} }
	forgeries := []Request{
		raw("PUT", "/v1/kv/"+holder),
		raw("PUT", "/v1/kv/_cairn/locks/forged/holder"),
		raw("PUT", "/v1/kv/%5Fcairn%2Flocks%2Fforge%2Fholder"),
		raw("PUT", "/v1/kv/_cairn/"),
		raw("PUT", "/v1/kv/"+holder+"?ttl=1h"),
		raw("PUT", "/v1/kv/"+holder+"?lease=01KB0000000000000000000000"),
		raw("PUT", "/v1/kv/"+holder+"?if_revision=0"),
		{Method: "PUT", Path: "/v1/kv/" + holder + "?ignore_value=true&lease=01KB0000000000000000000000"},
		raw("PUT", "/v1/key?key="+holder),
		raw("PUT", "/v1/key?key_base64="+coded),
		raw("POST", "/v1/kv/_cairn/locks/forge/?sequence=true"),
		raw("POST", "/v1/kv/_cairn/?sequence=true"),
		raw("POST", "/v1/key?sequence=true&key=_cairn/locks/forge/"),
		raw("DELETE", "/v1/kv/"+holder),
		raw("DELETE", "/v1/key?key="+holder),
		raw("DELETE", "/v1/key?key_base64="+coded),
		raw("DELETE", "/v1/kv?prefix=_cairn/"),
		raw("DELETE", "/v1/kv?prefix=_cairn"),
		raw("DELETE", "/v1/kv?prefix=_"),
		raw("DELETE", "/v1/kv?prefix="+holder),
		raw("DELETE", "/v1/kv?prefix_base64="+base64.URLEncoding.EncodeToString([]byte("_cairn/locks"))),
		raw("DELETE", "/v1/kv?start=A&end=z"),
		raw("DELETE", "/v1/kv?start=A"),
		raw("DELETE", "/v1/kv?end=z"),
		bulk(put), bulk(del),
		bulk(fmt.Sprintf(`{"put":{"key_base64":%q,"value":"{}"}}`, coded)),
		txn(`{"then":[%s]}`, put), txn(`{"then":[%s]}`, del),
		txn(`{"then":[{"put":{"key_base64":%q,"value":"{}"}}]}`, coded),
		txn(`{"then":[{"put":{"key":%q,"ignore_value":true,"lease":"01KB0000000000000000000000"}}]}`, holder),
		txn(`{"then":[{"increment":{"key":%q}}]}`, "_cairn/locks/forged/holder"),
		txn(`{"if":[{"key":"a","exists":true}],"then":[],"else":[%s]}`, put),
		txn(`{"then":[{"txn":{"then":[%s]}}]}`, put),
		txn(`{"then":[{"txn":{"if":[{"key":"a","exists":true}],"else":[{"txn":{"then":[%s]}}]}}]}`, del),
		txn(`{"then":[{"delete":{"prefix":"_cairn/locks/"}}]}`),
		txn(`{"then":[{"delete":{"prefix":"_"}}]}`),
		txn(`{"then":[{"delete":{"start":"A","end":"z"}}]}`),
		txn(`{"then":[{"txn":{"then":[{"delete":{"start":"A"}}]}}]}`),
	}
	before := h.Do(n, raw("GET", "/v1/kv?prefix=_cairn/"))
	must(t, before.explain())
	for _, q := range forgeries {
		a := h.Do(n, q)
		if a.Status == http.StatusOK && strings.Contains(q.Header["Content-Type"], "ndjson") {
			var w FencedWrite
			w.bulk(a.Body)
			a.Status, a.Problem.Code = w.Status, w.Code
		}
		if a.Status != http.StatusForbidden || a.Problem.Code != "reserved" {
			t.Errorf("%s %s %s: status %d, code %q, want 403 reserved", q.Method, q.Path, q.Body, a.Status, a.Problem.Code)
		}
	}
	// What deletes everything leaves them out.
	must(t, explained(h.Do(n, raw("PUT", "/v1/kv/a"))))
	must(t, explained(h.Do(n, raw("DELETE", "/v1/kv?all=true"))))
	// A token of nobody, which a missing holder has, is none.
	for _, fence := range []string{"forged:0", "forge:0", "forge:-1", "forge:02", "forge", "a/b:2", "forge:18446744073709551616"} {
		q := raw("PUT", "/v1/kv/a")
		q.Header = map[string]string{"Cairn-Fencing": fence}
		if a := h.Do(n, q); a.Status != http.StatusBadRequest {
			t.Errorf("the fence %q: status %d, code %q, want 400", fence, a.Status, a.Problem.Code)
		}
	}
	after := h.Do(n, raw("GET", "/v1/kv?prefix=_cairn/"))
	must(t, after.explain())
	if strip(before.Body) != strip(after.Body) {
		t.Errorf("the keys of the recipes were\n%s\nand are\n%s", before.Body, after.Body)
	}
}

func explained(a Answer) error { return a.explain() }

// strip leaves the revision of the answer out of a list.
func strip(list []byte) string {
	_, entries, _ := strings.Cut(string(list), `"entries"`)
	return entries
}

// TestStoppedHolder stops 'cairn lock' and the command that it runs for longer
// than the lock lives. The command wakes up first and writes: that is refused.
// Then the lock's own process wakes up, ends the command and says why.
func TestStoppedHolder(t *testing.T) {
	beside(t)
	c, h := startCluster(t, 3)
	endpoints := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		endpoints[i] = n.URL()
	}
	holder := exec.Command(Binary(t), "lock", "stopped", "--ttl", "4s", "--grace", "20s", "--endpoint", strings.Join(endpoints, ","), "--",
		"sh", "-c", `trap '' TERM; echo "$$ $CAIRN_FENCING"; while read key; do "$CAIRN" put "$key" late --endpoint "$ENDPOINTS" 2>&1 && echo "written $?" || echo "refused $?"; done; exit 0`)
	holder.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CAIRN_") }),
		"CAIRN="+Binary(t), "ENDPOINTS="+strings.Join(endpoints, ","))
	holder.SysProcAttr = processAttributes()
	var said strings.Builder
	holder.Stderr = &said
	in, err := holder.StdinPipe()
	must(t, err)
	out, err := holder.StdoutPipe()
	must(t, err)
	must(t, holder.Start())
	child := 0
	t.Cleanup(func() {
		if holder.ProcessState == nil { // it was not waited for: the test failed
			_ = holder.Process.Kill()
			if child != 0 {
				_ = syscall.Kill(child, syscall.SIGKILL)
			}
			_ = holder.Wait()
		}
	})
	lines := bufio.NewReader(out)
	var fence string
	line, err := lines.ReadString('\n')
	must(t, err)
	if _, err := fmt.Sscan(line, &child, &fence); err != nil {
		t.Fatalf("the command said %q: %v", line, err)
	}
	result := func(key string) string {
		t.Helper()
		_, err := io.WriteString(in, key+"\n")
		must(t, err)
		for {
			line, err := lines.ReadString('\n')
			must(t, err)
			if said := strings.TrimSpace(line); strings.HasPrefix(said, "written") || strings.HasPrefix(said, "refused") {
				return said
			} else if !strings.HasPrefix(said, "revision") {
				t.Logf("the command said: %s", said)
			}
		}
	}
	if got := result("f/in-time"); got != "written 0" {
		t.Fatalf("a write of the holder: %s", got)
	}

	must(t, holder.Process.Signal(syscall.SIGSTOP))
	must(t, syscall.Kill(child, syscall.SIGSTOP))
	patient := NewHTTP()
	defer patient.Close()
	patient.client.Timeout = time.Minute + requestTimeout
	next := patient.Do(c.Nodes[1], jsonRequest(http.MethodPost, "/v1/locks/stopped", `{"ttl_seconds":60,"wait_seconds":60}`))
	must(t, next.explain())

	must(t, syscall.Kill(child, syscall.SIGCONT))
	if got := result("f/late"); !strings.HasPrefix(got, "refused") {
		t.Errorf("a write after another got the lock: %s", got)
	}
	for i, r := range fencedRoutes {
		key := fmt.Sprintf("f/late/%d", i)
		q := r.request(key)
		if q.Header == nil {
			q.Header = map[string]string{}
		}
		q.Header["Cairn-Fencing"] = fence
		a := h.Do(c.Nodes[i%3], q)
		w := FencedWrite{Status: a.Status, Code: a.Problem.Code}
		if strings.HasPrefix(r.name, "bulk") && a.Status == http.StatusOK {
			w.bulk(a.Body)
		}
		if w.Status != http.StatusPreconditionFailed || w.Code != fenceStale {
			t.Errorf("%s with the old fence: status %d, code %q", r.name, w.Status, w.Code)
		}
	}
	must(t, holder.Process.Signal(syscall.SIGCONT))
	// The command ignores SIGTERM and ends when there is nothing to read.
	must(t, in.Close())
	ended := make(chan error, 1)
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		ended <- holder.Wait()
	}()
	select {
	case err := <-ended:
		if err == nil {
			t.Errorf("'cairn lock' ended as if it had held the lock; it said: %s", said.String())
		}
	case <-time.After(wholeWithin):
		t.Fatal("'cairn lock' does not end though its lock is lost")
	}
	if !strings.Contains(said.String(), "was lost") {
		t.Errorf("'cairn lock' does not say that its lock was lost: %s", said.String())
	}
	for key, want := range map[string]int{"f/in-time": 200, "f/late": 404} {
		if status, _ := status(h, c.Nodes[0], http.MethodGet, "/v1/kv/"+key, ""); status != want {
			t.Errorf("%s: status %d, want %d", key, status, want)
		}
	}
}
