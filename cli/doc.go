// Package cli is the command line, cairn.
//
// serve and dev start nodes with package node; certs, doctor, snapshot status and
// snapshot restore work on files. Every other command is a few lines over package
// client and speaks plain HTTP, so that it works with a node anywhere.
//
// The conventions that all commands share:
//
//   - What was asked for goes to the standard output, everything else to the
//     standard error. An error is one line.
//   - The exit status says what happened; see exitStatus.
//   - --output chooses between a table for people, JSON as the HTTP API has it,
//     and the bare value for scripts.
//   - A flag beats the environment, and the environment beats the file of
//     --config. All three set a flag through the same function, so that they
//     accept and refuse the same things.
//
// There is one command a file. What they share is in cli.go (the root), exit.go
// (errors and exit statuses), settings.go (environment and file), requests.go
// (flags of reads and writes), guarded.go (commands that run under a lock), output.go
// and running.go (nodes of this process).
package cli
