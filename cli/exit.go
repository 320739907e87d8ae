package cli

import (
	"errors"
	"fmt"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
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
)

// exitStatus tells a script what kind of error it was.
func exitStatus(err error) int {
	var (
		usage   *usageError
		refused *client.Error
	)
	switch {
	case err == nil:
		return statusOK
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

// explain is an error in one line, with what to do about it.
func explain(err error, command string) string {
	line := oneLine(err.Error())
	var (
		usage   *usageError
		refused *client.Error
	)
	switch {
	case errors.As(err, &usage):
		line += fmt.Sprintf(" (see '%s --help')", command)
	case errors.As(err, &refused) && refused.Problem.Status == 0 && errors.Is(err, client.ErrUnavailable):
		line += " (is a node running there? --endpoint or CAIRN_ENDPOINT says where it is)"
	}
	return line
}
