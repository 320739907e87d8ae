package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/cairnkv/cairn/bench/internal/rawhttp"
)

// gatewaySession speaks etcd's JSON gateway: everything is a POST, keys and
// values are base64. Requests of a fixed size exist as bytes from the start.
type gatewaySession struct {
	conn *rawhttp.Conn
	data *dataset
	host string

	putRequest, getRequest, staleRequest    []byte
	putKeyAt, putValueAt, getKeyAt, staleAt int

	key     [keySize]byte
	scratch []byte // a request of another size
	value   []byte // an expected value, encoded
}

// txnOps is how many operations a transaction of etcd may have by default.
const txnOps = 128

// Base64 makes four characters of three bytes.
const (
	encodedKeySize   = keySize / 3 * 4
	encodedValueSize = (valueSize + 2) / 3 * 4
)

func dialGateway(data *dataset) dialer {
	return func(ctx context.Context, addr string, n int) (*clients, error) {
		return dialEach(ctx, n, func() (session, func() error, error) {
			conn, err := rawhttp.Dial(addr, dialTimeout)
			if err != nil {
				return nil, nil, err
			}
			return newGatewaySession(conn, addr, data), conn.Close, nil
		})
	}
}

func newGatewaySession(conn *rawhttp.Conn, addr string, data *dataset) *gatewaySession {
	s := &gatewaySession{conn: conn, data: data, host: addr, value: make([]byte, encodedValueSize)}
	blankKey := bytes.Repeat([]byte{'A'}, encodedKeySize)
	blankValue := bytes.Repeat([]byte{'A'}, encodedValueSize)

	s.putRequest = s.post("/v3/kv/put", fmt.Sprintf(`{"key":"%s","value":"%s"}`, blankKey, blankValue))
	s.putKeyAt = bytes.Index(s.putRequest, blankKey)
	s.putValueAt = bytes.LastIndex(s.putRequest, blankValue)

	s.getRequest = s.post("/v3/kv/range", fmt.Sprintf(`{"key":"%s"}`, blankKey))
	s.getKeyAt = bytes.Index(s.getRequest, blankKey)

	s.staleRequest = s.post("/v3/kv/range", fmt.Sprintf(`{"key":"%s","serializable":true}`, blankKey))
	s.staleAt = bytes.Index(s.staleRequest, blankKey)
	return s
}

func (s *gatewaySession) post(path, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, s.host, len(body), body)
}

func (s *gatewaySession) put(key int, value []byte) error {
	putKey(s.key[:], key)
	base64.StdEncoding.Encode(s.putRequest[s.putKeyAt:], s.key[:])
	base64.StdEncoding.Encode(s.putRequest[s.putValueAt:], value)
	answer, err := s.conn.Do(s.putRequest)
	if err != nil {
		return err
	}
	if answer.Status != 200 {
		return unexpected("put", answer.Status, answer.Body)
	}
	return nil
}

func (s *gatewaySession) get(key int, stale bool) error {
	request, at := s.getRequest, s.getKeyAt
	if stale {
		request, at = s.staleRequest, s.staleAt
	}
	putKey(s.key[:], key)
	base64.StdEncoding.Encode(request[at:], s.key[:])
	answer, err := s.conn.Do(request)
	if err != nil {
		return err
	}
	base64.StdEncoding.Encode(s.value, s.data.loaded(key))
	if answer.Status != 200 || !bytes.Contains(answer.Body, s.value) {
		return unexpected("get", answer.Status, answer.Body)
	}
	return nil
}

func (s *gatewaySession) list(group int) error {
	putPrefix(s.key[:], group)
	prefix := s.key[:prefixSize]
	end := append([]byte(nil), prefix...)
	end[prefixSize-1]++ // the first key behind all that have the prefix
	answer, err := s.conn.Do(s.post("/v3/kv/range", fmt.Sprintf(`{"key":"%s","range_end":"%s","limit":%d}`,
		base64.StdEncoding.EncodeToString(prefix), base64.StdEncoding.EncodeToString(end), groupSize)))
	if err != nil {
		return err
	}
	if answer.Status != 200 || bytes.Count(answer.Body, []byte(`"create_revision":`)) != groupSize {
		return unexpected("list", answer.Status, answer.Body)
	}
	return nil
}

func (s *gatewaySession) batch() int { return txnOps }

func (s *gatewaySession) load(keys []int) error { return s.loadValues(keys, s.data.loaded) }

func (s *gatewaySession) loadValues(keys []int, value func(int) []byte) error {
	const (
		open    = `{"success":[`
		opKey   = `{"request_put":{"key":"`
		opValue = `","value":"`
		opEnd   = `"}},`
		shut    = `]}`
		op      = len(opKey) + encodedKeySize + len(opValue) + encodedValueSize + len(opEnd)
	)
	b := append(s.scratch[:0], "POST /v3/kv/txn HTTP/1.1\r\nHost: "+s.host+
		"\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(open)+len(keys)*op-1+len(shut)), 10)
	b = append(b, "\r\n\r\n"+open...)
	for _, key := range keys {
		putKey(s.key[:], key)
		b = append(b, opKey...)
		b = base64.StdEncoding.AppendEncode(b, s.key[:])
		b = append(b, opValue...)
		b = base64.StdEncoding.AppendEncode(b, value(key))
		b = append(b, opEnd...)
	}
	s.scratch = append(b[:len(b)-1], shut...) // the last operation has no comma behind it
	answer, err := s.conn.Do(s.scratch)
	if err != nil {
		return err
	}
	if answer.Status != 200 || !bytes.Contains(answer.Body, []byte(`"succeeded":`)) {
		return unexpected("load", answer.Status, answer.Body)
	}
	return nil
}
