package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Bounds of a trace file.
const (
	maxTraceLine   = 256
	maxTraceRows   = 1_000_000
	maxTraceTokens = 1 << 40
)

// traceRow is one request of recorded or generated LLM traffic.
type traceRow struct {
	after  time.Duration // since the first request
	input  uint64        // tokens
	output uint64        // tokens
}

// traceFile finds the recorded traffic: CRETO_DATA names its folder, else it lies in ../shared/data beside the repository
// that the working directory is the root of. An empty path means that there is none.
func traceFile(getenv func(string) string) string {
	const name = "azure-llm-code.csv"
	dir := getenv("CRETO_DATA")
	if dir == "" {
		dir = filepath.Join("..", "shared", "data")
	}
	path := filepath.Join(dir, name)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return path
}

// readTrace reads rows TIMESTAMP,ContextTokens,GeneratedTokens below one header line, at most limit of them (0 = all).
// Times must not go back.
func readTrace(r io.Reader, limit int) ([]traceRow, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, maxTraceLine), maxTraceLine)
	if !lines.Scan() {
		return nil, errors.Join(errors.New("read trace: no header line"), lines.Err())
	}
	if limit <= 0 {
		limit = maxTraceRows
	}
	var rows []traceRow
	var first, last time.Time
	for n := 2; len(rows) < limit && lines.Scan(); n++ {
		at, row, err := parseTraceRow(strings.TrimSuffix(lines.Text(), "\r"))
		if err != nil {
			return nil, fmt.Errorf("read trace: line %d: %w", n, err)
		}
		if len(rows) == 0 {
			first = at
		} else if at.Before(last) {
			return nil, fmt.Errorf("read trace: line %d: time goes back", n)
		}
		last = at
		row.after = at.Sub(first)
		rows = append(rows, row)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	if len(rows) == 0 {
		return nil, errors.New("read trace: no requests")
	}
	return rows, nil
}

func parseTraceRow(line string) (time.Time, traceRow, error) {
	fields := strings.Split(line, ",")
	if len(fields) != 3 {
		return time.Time{}, traceRow{}, fmt.Errorf("%d fields, want 3", len(fields))
	}
	at, err := time.Parse("2006-01-02 15:04:05.9999999", fields[0])
	if err != nil {
		return time.Time{}, traceRow{}, err
	}
	var tokens [2]uint64
	for i, f := range fields[1:] {
		if tokens[i], err = strconv.ParseUint(f, 10, 64); err != nil {
			return time.Time{}, traceRow{}, err
		}
		if tokens[i] > maxTraceTokens {
			return time.Time{}, traceRow{}, fmt.Errorf("%d tokens are more than %d", tokens[i], uint64(maxTraceTokens))
		}
	}
	return at, traceRow{input: tokens[0], output: tokens[1]}, nil
}

// Shape of the recorded hour: quantiles of gaps and tokens, closer where the tail is long. Requests come
// in bursts; the longest silence is over three minutes.
var (
	traceQuantiles = []float64{0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.998, 0.9995, 1}
	traceGapMicros = []float64{5, 22, 87, 208, 2076, 63784, 103987, 272778, 400763, 2204598, 8406082, 40301602, 123429821, 217168951}
	traceInput     = []float64{3, 17, 75, 147, 578, 1469, 2744, 5186, 7302, 7436, 7436, 7436, 7437, 7437}
	traceOutput    = []float64{6, 6, 6, 7, 9, 13, 24, 55, 90, 249, 343, 666, 871, 1899}
)

// traceRows is how many requests the recorded hour has.
const traceRows = 8819

// madeTrace generates n requests (0 = as many as the recorded hour has) of the recorded hour's shape, the same ones every
// time.
func madeTrace(n int) []traceRow {
	if n <= 0 {
		n = traceRows
	}
	random := rand.New(rand.NewPCG(2023, 1116)) //nolint:gosec // traffic, not a secret
	rows := make([]traceRow, n)
	var at time.Duration
	for i := range rows {
		if i > 0 {
			at += time.Duration(quantile(traceGapMicros, random.Float64())) * time.Microsecond
		}
		rows[i] = traceRow{after: at, input: uint64(quantile(traceInput, random.Float64())), output: uint64(quantile(traceOutput, random.Float64()))}
	}
	return rows
}

// quantile reads the value at p, 0 ≤ p < 1, between the known quantiles by straight lines.
func quantile(values []float64, p float64) float64 {
	i := 1
	for traceQuantiles[i] <= p {
		i++
	}
	share := (p - traceQuantiles[i-1]) / (traceQuantiles[i] - traceQuantiles[i-1])
	return values[i-1] + share*(values[i]-values[i-1])
}

// tokensOf sums the tokens of rows.
func tokensOf(rows []traceRow) (input, output uint64) {
	for _, r := range rows {
		input += r.input
		output += r.output
	}
	return input, output
}
