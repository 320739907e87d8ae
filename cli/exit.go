package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
	"github.com/cairnkv/cairn/node"
)

// Exit statuses.
const (
	statusOK          = 0
	statusOther       = 1
	statusUsage       = 2
	statusNotFound    = 3
	statusConflict    = 4
	statusUnavailable = 5
	statusUnknown     = 6
	statusHopeless    = node.StatusHopeless
)

// exitStatus tells a script what kind of error it was.
func exitStatus(err error) int {
	var (
		usage    *usageError
		refused  *client.Error
		lost     *lostError
		notTaken *notTakenError
	)
	switch {
	case err == nil:
		return statusOK
	case node.Hopeless(err):
		return statusHopeless
	case errors.As(err, &lost), errors.As(err, &notTaken):
		return statusConflict
	case errors.As(err, &usage):
		return statusUsage
	case errors.Is(err, errNotSucceeded):
		return statusConflict
	case !errors.As(err, &refused):
		return statusOther
	}
	switch refused.Class() {
	case api.ClassUsage:
		return statusUsage
	case api.ClassNotFound:
		return statusNotFound
	case api.ClassConflict:
		return statusConflict
	case api.ClassUnavailable:
		return statusUnavailable
	case api.ClassUnknown:
		return statusUnknown
	}
	return statusOther
}

// A usageError is the caller's: the command was not begun.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// A keyError is a refusal that is about a key.
type keyError struct {
	key string
	error
}

func (e *keyError) Unwrap() error { return e.error }

// aboutKey says which key an error is about.
func aboutKey(key string, err error) error {
	if err == nil {
		return nil
	}
	return &keyError{key, err}
}

// explain is an error in one line, with what to do about it.
func explain(err error, command string) string {
	var (
		usage   *usageError
		about   *keyError
		refused *client.Error
	)
	line := err.Error()
	var lost *lostError
	if errors.As(err, &refused) && !errors.As(err, &lost) {
		line = refusal(refused)
	}
	if errors.As(err, &about) {
		line = displayKey([]byte(about.key)) + ": " + line
	}
	switch {
	case errors.As(err, &usage):
		line += fmt.Sprintf(" (see '%s --help')", command)
	case refused != nil && refused.Problem.Status == 0 && errors.Is(err, client.ErrUnavailable):
		line += " (is a node running there? --endpoint or CAIRN_ENDPOINT says where it is)"
	}
	return oneLine(line)
}

// refusal is what a node says, without the title that every problem of a code
// has: to people the detail says the same and more.
func refusal(e *client.Error) string {
	p := &e.Problem
	if p.Status == 0 || p.Code == "" || p.Detail == "" {
		return e.Error()
	}
	text := fmt.Sprintf("%s (%s)", p.Detail, p.Code)
	if p.Code == api.CodeConditionFailed && p.CurrentRevision != nil {
		if *p.CurrentRevision == 0 {
			return text + "; it does not exist"
		}
		return text + fmt.Sprintf("; it is at %d", *p.CurrentRevision)
	}
	return text
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
