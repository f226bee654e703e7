// Command creto is the one binary of Creto: the server, a development cluster, the sandbox node, the client of all services and
// the offline verifier.
//
// Commands are a noun and a verb (`creto quota set`). Every command has the same manners: data goes to stdout in the form that
// -o names (table, json, jsonl, yaml), talk and progress to stderr; names in JSON are a contract; the exit code says what
// happened (docs/exit-codes.md); settings come from the configuration file, the environment (CRETO_…) and flags, the later one
// winning; no secret is ever the value of a flag.
package main
