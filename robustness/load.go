package robustness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// A Report is the last line of the answer to a bulk write.
type Report struct {
	Applied  int     `json:"applied"`
	Revision uint64  `json:"revision"`
	Done     bool    `json:"done"`
	Error    Problem `json:"error"`
}

// A Pair is a key and its value.
type Pair struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Load writes pairs to a node in one stream, as fast as the node takes them.
func Load(n *Node, pairs func(yield func(Pair) bool)) (Report, error) {
	body, pipe := io.Pipe()
	go func() { // ends with the pairs, or when the request does
		w := bufio.NewWriterSize(pipe, 64<<10)
		lines := json.NewEncoder(w)
		lines.SetEscapeHTML(false)
		var err error
		for p := range pairs {
			if err = lines.Encode(map[string]Pair{"put": p}); err != nil {
				break
			}
		}
		if err == nil {
			err = w.Flush()
		}
		pipe.CloseWithError(err) // nil is the end of the body
	}()
	defer body.Close()
	answer, err := http.Post(n.URL()+"/v1/kv", "application/x-ndjson", body)
	if err != nil {
		return Report{}, err
	}
	defer answer.Body.Close()
	var last Report
	err = eachLine(answer, func(line []byte) error {
		last = Report{}
		return json.Unmarshal(line, &last)
	})
	return last, err
}

// Stream reads a list of any size from a node, an entry at a time.
func Stream(n *Node, query string, each func(Version) error) error {
	r, err := http.NewRequest(http.MethodGet, n.URL()+"/v1/kv?"+query, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/x-ndjson")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return eachLine(answer, func(line []byte) error {
		var v Version
		if err := json.Unmarshal(line, &v); err != nil {
			return err
		}
		return each(v)
	})
}

func eachLine(answer *http.Response, do func([]byte) error) error {
	if answer.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("status %d: %s", answer.StatusCode, bytes.TrimSpace(body))
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		if err := do(lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}
