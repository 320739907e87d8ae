package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeCairn answers the routes that the load generator uses as Cairn does.
type fakeCairn struct {
	mu     sync.Mutex
	values map[string]string
	broken bool // answers everything with 503
}

func (f *fakeCairn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := strings.TrimPrefix(r.URL.Path, "/v1/kv/")
	switch {
	case f.broken:
		http.Error(w, `{"code":"unavailable"}`, http.StatusServiceUnavailable)
	case r.Method == http.MethodPut:
		body, _ := io.ReadAll(r.Body)
		status := http.StatusCreated
		if _, ok := f.values[key]; ok {
			status = http.StatusOK
		}
		f.values[key] = string(body)
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"revision":2,"created":%t}`, status == http.StatusCreated)
	case r.Method == http.MethodPost:
		f.bulk(w, r)
	case r.URL.Query().Has("prefix"):
		f.list(w, r)
	default:
		value, ok := f.values[key]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, value)
	}
}

func (f *fakeCairn) bulk(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") != "application/x-ndjson" {
		http.Error(w, "content type", http.StatusUnsupportedMediaType)
		return
	}
	lines := 0
	for scanner := bufio.NewScanner(r.Body); scanner.Scan(); lines++ {
		var line struct{ Put struct{ Key, Value string } }
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			fmt.Fprintf(w, `{"applied":%d,"revision":3,"done":false,"error":{"code":"invalid"}}`+"\n", lines)
			return
		}
		f.values[line.Put.Key] = line.Put.Value
	}
	fmt.Fprintf(w, `{"applied":%d,"revision":3,"done":true}`+"\n", lines)
}

func (f *fakeCairn) list(w http.ResponseWriter, r *http.Request) {
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	type entry struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	var entries []entry
	for key, value := range f.values {
		if strings.HasPrefix(key, r.URL.Query().Get("prefix")) {
			entries = append(entries, entry{key, value})
		}
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Key < entries[j].Key })
	_ = json.NewEncoder(w).Encode(map[string]any{"revision": 3, "entries": entries[:min(limit, len(entries))]})
}

func TestCairnSession(t *testing.T) {
	fake := &fakeCairn{values: map[string]string{}}
	server := httptest.NewServer(fake)
	defer server.Close()
	data := newDataset()
	exercise(t, dialCairn(data, 300), server.Listener.Addr().String(), data)
	fake.mu.Lock()
	fake.broken = true
	fake.mu.Unlock()
	mustFail(t, dialCairn(data, 300), server.Listener.Addr().String(), data)
}

func TestFloorSession(t *testing.T) {
	stack, err := openStack(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, store := range map[string]valueStore{nameFloor: &mapStore{values: map[string][]byte{}}, nameStack: stack} {
		t.Run(name, func(t *testing.T) { testFloorSession(t, store) })
	}
	if err := stack.close(); err != nil {
		t.Error(err)
	}
}

func testFloorSession(t *testing.T, store valueStore) {
	server := httptest.NewServer(&floorHandler{store})
	defer server.Close()
	data := newDataset()
	c, err := dialFloor(data)(t.Context(), server.Listener.Addr().String(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := fill(t.Context(), c.sessions, 100); err != nil {
		t.Fatal(err)
	}
	if err := c.sessions[1].get(99, false); err != nil {
		t.Error(err)
	}
	if err := c.sessions[1].get(100, false); err == nil {
		t.Error("a key that was never written could be read")
	}
}

// Both faces of a real etcd, in a process of its own as in a measurement.
func TestEtcdSessions(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	self := buildSelf(t)
	data := newDataset()
	for _, target := range []target{
		gatewayTarget(self, data, tuning{EtcdTxns: 2}),
		grpcTarget(self, data, tuning{EtcdTxns: 2, EtcdWriteConnections: 2}),
	} {
		t.Run(target.name, func(t *testing.T) {
			srv, err := target.start(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := srv.discard(); err != nil {
					t.Error(err)
				}
			}()
			exercise(t, target.dial, srv.addr, data)
			if err := srv.stop(); err != nil {
				t.Fatal(err)
			}
			mustFail(t, target.dial, srv.addr, data)
			if err := srv.run(t.Context(), target.readBack); err != nil {
				t.Fatal(err)
			}
			if err := srv.spotCheck(t.Context(), groupSize); err != nil {
				t.Error("after a restart:", err)
			}
		})
	}
}

// exercise does everything that a session can do, right and wrong.
func exercise(t *testing.T, dial dialer, addr string, data *dataset) {
	t.Helper()
	c, err := dial(t.Context(), addr, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := fill(t.Context(), c.sessions, groupSize); err != nil {
		t.Fatal(err)
	}
	s := c.sessions[2]
	for _, stale := range []bool{false, true} {
		if err := s.get(groupSize-1, stale); err != nil {
			t.Error("get:", err)
		}
		if s.get(groupSize, stale) == nil {
			t.Error("a key that was never written could be read")
		}
	}
	if err := s.list(0); err != nil {
		t.Error("list:", err)
	}
	if s.list(1) == nil {
		t.Error("an empty list passes for a full one")
	}
	for range 2 { // created, then replaced
		if err := s.put(groupSize, data.loaded(groupSize+1)); err != nil {
			t.Error("put:", err)
		}
	}
	if s.get(groupSize, false) == nil {
		t.Error("another value passes for the loaded one")
	}
	if err := s.put(groupSize, data.loaded(groupSize)); err != nil {
		t.Error("put:", err)
	}
	if err := s.get(groupSize, false); err != nil {
		t.Error("get after put:", err)
	}
}

// mustFail holds that no answer but the right one counts.
func mustFail(t *testing.T, dial dialer, addr string, data *dataset) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for name, do := range map[string]func(session) error{
		"put":  func(s session) error { return s.put(0, data.loaded(0)) },
		"get":  func(s session) error { return s.get(0, false) },
		"list": func(s session) error { return s.list(0) },
		"load": func(s session) error { return s.load([]int{0, 1}) },
	} {
		c, err := dial(ctx, addr, 1)
		if err != nil {
			continue // the server is gone, which is failure enough
		}
		if do(c.sessions[0]) == nil {
			t.Errorf("%s succeeds on a server that refuses everything", name)
		}
		c.close()
	}
}

func TestAppliedAll(t *testing.T) {
	for body, want := range map[string]bool{
		`{"applied":7,"revision":9,"done":true}` + "\n":                       true,
		"{\"applied\":3}\n{\"applied\":7,\"revision\":9,\"done\":true}\n\n":   true,
		`{"applied":6,"revision":9,"done":true}` + "\n":                       false,
		`{"applied":7,"revision":9}` + "\n":                                   false,
		`{"applied":7,"revision":9,"done":false,"error":{"code":"x"}}` + "\n": false,
		"": false, "\n": false, "7": false,
	} {
		if got := appliedAll([]byte(body), 7); got != want {
			t.Errorf("%q: %v", body, got)
		}
	}
}
