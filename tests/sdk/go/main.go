// Checks through the Milvus Go client, one line of JSON each: {"check": name, "ok": bool, "detail": text}. Usage: go run . ADDRESS
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/milvus-io/milvus/client/v2/milvusclient"
)

// Longest time one check may take.
const checkTimeout = 60 * time.Second

type check struct {
	name string
	run  func(ctx context.Context, client *milvusclient.Client) error
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run . ADDRESS")
		os.Exit(2)
	}
	connecting, cancel := context.WithTimeout(context.Background(), checkTimeout)
	client, err := milvusclient.New(connecting, &milvusclient.ClientConfig{Address: os.Args[1]})
	cancel()
	report("connect", err)
	if err != nil {
		os.Exit(1)
	}
	failed := false
	// In this order: each stands on what those before it left.
	for _, one := range []check{
		{"version", version},
		{"create", create},
		{"insert", insert},
		{"index", indexes},
		{"load", load},
		{"search", search},
		{"filtered_search", filteredSearch},
		{"hybrid", hybrid},
		{"query", query},
		{"get", get},
		{"query_iterator", queryIterator},
		{"search_iterator", searchIterator},
		{"upsert", upsert},
		{"delete", remove},
		{"partitions", partitions},
		{"aliases", aliases},
		{"databases", databases},
		{"auto_id_rows", autoIDRows},
		{"errors", badInput},
		{"drop", drop},
	} {
		err := runOne(one, client)
		report(one.name, err)
		failed = failed || err != nil
	}
	if failed {
		os.Exit(1)
	}
}

// runOne turns a panic of the client (it indexes into replies) into a failed check.
func runOne(one check, client *milvusclient.Client) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	return one.run(ctx, client)
}

func report(name string, err error) {
	detail := ""
	if err != nil {
		detail = err.Error()
	}
	line, _ := json.Marshal(map[string]any{"check": name, "ok": err == nil, "detail": detail})
	fmt.Println(string(line))
}
