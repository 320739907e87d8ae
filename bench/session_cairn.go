package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/cairnkv/cairn/bench/internal/rawhttp"
)

const dialTimeout = 5 * time.Second

// cairnSession speaks Cairn's HTTP API. Each request exists as bytes from the
// start; only its key and its value are replaced.
type cairnSession struct {
	conn *rawhttp.Conn
	data *dataset

	putRequest, getRequest, staleRequest, listRequest []byte
	putKeyAt, putValueAt, getKeyAt, listKeyAt         int

	host  string
	lines []byte // of a load
	lineN int
}

// A line of a bulk write: the key stands behind bulkKey, the value behind bulkValue.
// All lines have the same size.
const (
	bulkKey   = `{"put":{"key":"`
	bulkValue = `","value":"`
	bulkEnd   = "\"}}\n"
	bulkSize  = len(bulkKey) + keySize + len(bulkValue) + valueSize + len(bulkEnd)
)

// dialCairn opens sessions that load as many keys with a request as said.
func dialCairn(data *dataset, linesPerLoad int) dialer {
	return func(ctx context.Context, addr string, n int) (*clients, error) {
		return dialEach(ctx, n, func() (session, func() error, error) {
			conn, err := rawhttp.Dial(addr, dialTimeout)
			if err != nil {
				return nil, nil, err
			}
			return newCairnSession(conn, addr, data, linesPerLoad), conn.Close, nil
		})
	}
}

func newCairnSession(conn *rawhttp.Conn, addr string, data *dataset, linesPerLoad int) *cairnSession {
	s := &cairnSession{conn: conn, data: data, host: addr, lineN: linesPerLoad}
	key := string(bytes.Repeat([]byte{'k'}, keySize))
	end := " HTTP/1.1\r\nHost: " + addr + "\r\n"

	put := "PUT /v1/kv/"
	s.putKeyAt = len(put)
	put += key + end + "Content-Length: " + strconv.Itoa(valueSize) + "\r\n\r\n"
	s.putValueAt = len(put)
	s.putRequest = append([]byte(put), make([]byte, valueSize)...)

	get := "GET /v1/kv/"
	s.getKeyAt = len(get)
	s.getRequest = []byte(get + key + end + "\r\n")
	s.staleRequest = []byte(get + key + "?consistency=stale" + end + "\r\n")

	list := "GET /v1/kv?prefix="
	s.listKeyAt = len(list)
	s.listRequest = []byte(list + key[:prefixSize] + "&limit=" + strconv.Itoa(groupSize) + end + "\r\n")
	return s
}

func (s *cairnSession) put(key int, value []byte) error {
	putKey(s.putRequest[s.putKeyAt:], key)
	copy(s.putRequest[s.putValueAt:], value)
	answer, err := s.conn.Do(s.putRequest)
	if err != nil {
		return err
	}
	if answer.Status != 200 && answer.Status != 201 {
		return unexpected("put", answer.Status, answer.Body)
	}
	return nil
}

func (s *cairnSession) get(key int, stale bool) error {
	request := s.getRequest
	if stale {
		request = s.staleRequest
	}
	putKey(request[s.getKeyAt:], key)
	answer, err := s.conn.Do(request)
	if err != nil {
		return err
	}
	if answer.Status != 200 || !bytes.Equal(answer.Body, s.data.loaded(key)) {
		return unexpected("get", answer.Status, answer.Body)
	}
	return nil
}

func (s *cairnSession) list(group int) error {
	putPrefix(s.listRequest[s.listKeyAt:], group)
	answer, err := s.conn.Do(s.listRequest)
	if err != nil {
		return err
	}
	if answer.Status != 200 || bytes.Count(answer.Body, []byte(`"key":"bench/`)) != groupSize {
		return unexpected("list", answer.Status, answer.Body)
	}
	return nil
}

func (s *cairnSession) batch() int { return s.lineN }

func (s *cairnSession) load(keys []int) error { return s.loadValues(keys, s.data.loaded) }

// loadValues streams the keys as lines, a part at a time, so that the server has the
// first ones long before the last are written, as from a client that reads a file.
func (s *cairnSession) loadValues(keys []int, value func(int) []byte) error {
	const part = 64 << 10
	s.lines = fmt.Appendf(s.lines[:0], "POST /v1/kv HTTP/1.1\r\nHost: %s\r\n"+
		"Content-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n", s.host, len(keys)*bulkSize)
	for _, key := range keys {
		s.lines = append(s.lines, bulkKey...)
		at := len(s.lines)
		s.lines = append(s.lines, make([]byte, keySize)...)
		putKey(s.lines[at:], key)
		s.lines = append(s.lines, bulkValue...)
		s.lines = append(s.lines, value(key)...)
		s.lines = append(s.lines, bulkEnd...)
		if len(s.lines) >= part {
			if err := s.conn.Send(s.lines); err != nil {
				return err
			}
			s.lines = s.lines[:0]
		}
	}
	answer, err := s.conn.Do(s.lines)
	if err != nil {
		return err
	}
	if answer.Status != 200 || !appliedAll(answer.Body, len(keys)) {
		return unexpected("load", answer.Status, answer.Body)
	}
	return nil
}

// appliedAll looks at the last line of a bulk answer, which says what was done.
func appliedAll(body []byte, lines int) bool {
	body = bytes.TrimRight(body, "\n")
	last := body[bytes.LastIndexByte(body, '\n')+1:]
	var end struct {
		Applied int  `json:"applied"`
		Done    bool `json:"done"`
	}
	return json.Unmarshal(last, &end) == nil && end.Applied == lines && end.Done
}
