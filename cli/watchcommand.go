package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

// watchVariable begins the names of the variables that a command of a watch gets.
const watchVariable = environmentPrefix + "WATCH_"

// A watchCommand runs a command for each event, one after the other. One that runs
// when the watch is told to end is waited for: what it does may not be fit to be
// left half done.
type watchCommand struct {
	a             *app
	ctx           context.Context // of the watch
	args          []string
	stopOnFailure bool

	begun bool // something was handed out, which a reset ends
}

func (s *watchCommand) put(m *client.WatchMessage) error {
	switch {
	case m.Kind != client.WatchReset:
		s.begun = true
	case s.begun:
		if err := s.run("reset", []string{"TYPE=reset", "REVISION=" + number(m.Revision)}, nil); err != nil {
			return err
		}
	}
	for i := range m.Entries {
		e := &m.Entries[i]
		present := api.WatchedChange{Change: api.Change{Type: api.TypePut, Entry: e.Entry}, Names: e.Names}
		if err := s.event(&present, "INITIAL=true"); err != nil {
			return err
		}
	}
	for i := range m.Events {
		if err := s.event(&m.Events[i]); err != nil {
			return err
		}
	}
	return nil
}

// event runs the command for an event.
func (s *watchCommand) event(e *api.WatchedChange, variables ...string) error {
	set := func(name, value string) { variables = append(variables, name+"="+value) }
	set("TYPE", e.Type)
	if !bytes.Contains(e.Key, []byte{0}) {
		set("KEY", string(e.Key))
	}
	set("KEY_BASE64", base64.StdEncoding.EncodeToString(e.Key))
	set("REVISION", number(e.ModRevision))
	set("TIME", timeText(e.ModifiedAt))
	if e.Type == api.TypeDelete {
		set("REASON", e.Reason)
	} else {
		set("CREATE_REVISION", number(e.CreateRevision))
		set("VERSION", number(e.Version))
		set("CONTENT_TYPE", e.ContentType)
		set("LEASE", e.Lease)
	}
	input := e.Value
	if s.a.output == outputJSON {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		input = append(line, '\n')
	}
	return s.run(fmt.Sprintf("%s of %s at revision %d", e.Type, displayKey(e.Key), e.ModRevision), variables, input)
}

// run runs the command and waits for it. A failure is reported, and is an error
// only if the watch is to end with it.
func (s *watchCommand) run(about string, variables []string, input []byte) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	command := exec.Command(s.args[0], s.args[1:]...)
	// What a watch set that runs this one is none of this event's.
	command.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, watchVariable) })
	// A cairn that the command runs speaks to the same nodes.
	command.Env = append(command.Env, variable("endpoint")+"="+strings.Join(s.a.endpoints, ","))
	for _, v := range variables {
		command.Env = append(command.Env, watchVariable+v)
	}
	// The keyboard interrupts the watch, and not what it waits for. That has no terminal, so
	// that what asks for a password there fails: in the background of ours it would stand
	// still for ever.
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Stdin = bytes.NewReader(input)
	command.Stdout, command.Stderr = s.a.stdout, s.a.stderr
	err := command.Run()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w (%s)", s.args[0], err, about)
	if s.stopOnFailure || s.ctx.Err() != nil { // interrupted, it is not done
		return err
	}
	fmt.Fprintf(s.a.stderr, "cairn: %s\n", oneLine(err.Error()))
	return nil
}
