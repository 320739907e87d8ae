package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/client"
)

// Completion of keys must not keep the shell waiting.
const (
	completeTimeout = 2 * time.Second
	completeLimit   = 200
)

// completeKey completes the first argument to a key, a level at a time.
func (a *app) completeKey(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completeLevel(cmd, args, typed, true)
}

// completePrefix completes the first argument to what keys have in common.
func (a *app) completePrefix(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completeLevel(cmd, args, typed, false)
}

func (a *app) completeLevel(cmd *cobra.Command, args []string, typed string, keys bool) ([]cobra.Completion, cobra.ShellCompDirective) {
	const nothing = cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault // a value may be @FILE
	}
	// Completion does not pass through what commands run before they begin.
	if err := fromEnvironment(cmd); err != nil {
		return cobra.AppendActiveHelp(nil, err.Error()), nothing
	}
	c, err := client.New(client.Config{Endpoints: a.endpoints, Timeout: completeTimeout, Attempts: len(a.endpoints)})
	if err != nil {
		return nil, nothing
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
	defer cancel()
	what := client.EveryKey()
	if typed != "" {
		what = client.Prefix(typed)
	}
	page, err := c.List(ctx, what, client.Delimiter("/"), client.KeysOnly(), client.Limit(completeLimit))
	if err != nil {
		return nil, nothing
	}
	var found []cobra.Completion
	deeper := false
	for _, item := range level(page) {
		// A shell can't take a line break or a description's tab in a word.
		if strings.ContainsAny(string(item.name), "\t\r\n") || !item.common && !keys {
			continue
		}
		deeper = deeper || item.common
		found = append(found, string(item.name))
	}
	if deeper {
		return found, nothing | cobra.ShellCompDirectiveNoSpace
	}
	return found, nothing
}
