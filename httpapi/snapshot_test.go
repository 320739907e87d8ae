package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/kv"
)

// GET /v1/snapshot gives a file that is whole, and says its checksum behind it.
func TestSnapshot(t *testing.T) {
	k := newKit(t)
	for i := range 300 {
		k.put(fmt.Sprint("k", i), strings.Repeat("v", i))
	}
	revision := k.put("last", "v")
	for _, query := range []string{"", "?consistency=stale", "?min_revision=3", "?max_staleness=5s"} {
		a := k.do("GET", "/v1/snapshot"+query, nil, "X-Request-Id: mine")
		a.want(t, 200, "")
		info, err := backup.Verify(bytes.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		if info.Keys != 301 || info.Revision != revision || info.ClusterID != testCluster.String() {
			t.Errorf("%+v", info)
		}
		sum := sha256.Sum256(a.body)
		if got, want := a.Trailer.Get(api.HeaderDigest), "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":"; got != want {
			t.Errorf("%s: %q, want %q", api.HeaderDigest, got, want)
		}
		if got, want := a.Header.Get("Content-Disposition"), fmt.Sprintf(`attachment; filename="cairn-20261122T050000.000Z-r%d.cairn-backup"`, revision); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(a.Header.Get("Content-Disposition"), `attachment; filename="`), `"`)
		if one, ok := backup.ParseName(name); !ok || !one.Taken.Equal(testStart) || one.Revision != revision {
			t.Errorf("%s is not a name under which a restore finds it", name)
		}
		if got := a.Header.Get(api.HeaderRevision); got != fmt.Sprint(revision) {
			t.Errorf("revision %s", got)
		}
	}
	k.do("GET", "/v1/snapshot?revision=3", nil).want(t, 400, api.CodeInvalidArgument)
	k.do("GET", "/v1/snapshot", nil, "Accept: application/json").want(t, 406, api.CodeNotAcceptable)
	k.member.waiting = func(kv.Consistency) error { return kv.Errorf(kv.NoLeader, "made to fail") }
	k.do("GET", "/v1/snapshot", nil).want(t, 503, api.CodeNoLeader)
}

// A backup that fails once it has begun breaks the connection off: nobody takes
// it for a whole one, with or without looking into it.
func TestSnapshotThatFails(t *testing.T) {
	k := newKit(t)
	// What random bytes there are is not compressed, and some of the file has left
	// when the rest fails.
	rng := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, 64<<10)
	for i := range 100 {
		for j := range value {
			value[j] = byte(rng.Uint32())
		}
		k.put(fmt.Sprint("k", i), string(value))
	}
	n := 0
	k.member.scanning = func(*kv.Entry) error {
		if n++; n >= 50 {
			return errors.New("the disk is broken")
		}
		return nil
	}
	resp, err := k.client.Get("http://" + k.addr + "/v1/snapshot")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err == nil {
		t.Error("the answer looks complete")
	}
	var d *backup.DamagedError
	if _, err := backup.Verify(bytes.NewReader(body)); !errors.As(err, &d) {
		t.Errorf("the file looks complete: %v", err)
	}
}

// A node streams two backups at a time.
func TestSnapshotsAtATime(t *testing.T) {
	k := newKit(t)
	k.put("k", "v")
	reached, release := make(chan struct{}), make(chan struct{})
	k.member.scanning = func(*kv.Entry) error {
		reached <- struct{}{}
		<-release
		return nil
	}
	done := make(chan *answer, maxSnapshots)
	for range maxSnapshots {
		go func() { done <- k.do("GET", "/v1/snapshot", nil) }()
		<-reached
	}
	k.do("GET", "/v1/snapshot", nil).want(t, 429, api.CodeBusy)
	close(release)
	for range maxSnapshots {
		(<-done).want(t, 200, "")
	}
	go func() { <-reached }()
	k.do("GET", "/v1/snapshot", nil).want(t, 200, "")
}

// While the store is being filled from a backup, and while its content can't be
// trusted, nothing is read from it or written to it, and what tells of the node
// goes on. In the latter case so do members and renewals, about which the node asks
// itself again.
func TestWhileNothingIsServed(t *testing.T) {
	for reason, code := range map[kv.Code]api.Code{kv.Restoring: api.CodeRestoring, kv.CorruptContent: api.CodeCorrupt} {
		k := newKit(t)
		k.put("k", "v")
		k.member.unserved = reason
		for i := range k.server.routes {
			rt := &k.server.routes[i]
			path := strings.NewReplacer("{id}", testMember.String(), "{name}", "n", "{service}", "s", "{instance}", "i", "*", "k").Replace(rt.pattern)
			if rt.method == http.MethodHead {
				continue
			}
			a := k.do(rt.method, path, nil)
			renews := strings.HasSuffix(path, "/keepalive") || strings.HasSuffix(path, "/hold")
			want := strings.HasPrefix(path, "/v1/") && path != "/v1/status" && path != "/v1/alarms" &&
				!(reason == kv.CorruptContent && (renews || strings.HasPrefix(path, "/v1/cluster")))
			if got := a.StatusCode == 503 && a.problem(t).Code == code; got != want {
				t.Errorf("%s, %s %s: %d %.200s", code, rt.method, path, a.StatusCode, a.body)
			}
		}
	}
}
