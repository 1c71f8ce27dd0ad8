// The packages example in small, with the unmodified Milvus Go client: fill, search, snapshot, change, restore beside it, compare.
//
//	make run
//	cd examples/go && go run .        CAIRN_ADDRESS=127.0.0.1:19530 says where
//
// This client (v2.6.2) has no calls for snapshots yet: they are asked of the `cairn` command of this checkout.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/milvus-io/milvus/client/v2/column"
	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/index"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
)

const (
	rowCount = 2000
	dim      = 64
	snapshot = "before_the_storm"
)

var sections = []string{"libs", "python", "doc", "games"}

type pkg struct {
	name, section string
	installedKb   int32
	embedding     []float32
}

// model is what a collection must hold.
type model map[string]pkg

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func unitVector(random *rand.Rand) []float32 {
	vector, square := make([]float32, dim), 0.0
	for i := range vector {
		vector[i] = float32(random.NormFloat64())
		square += float64(vector[i]) * float64(vector[i])
	}
	for i := range vector {
		vector[i] /= float32(math.Sqrt(square))
	}
	return vector
}

func dot(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

func columns(rows model) []column.Column {
	var names, parts []string
	var sizes []int32
	var vectors [][]float32
	for _, row := range rows {
		names, parts = append(names, row.name), append(parts, row.section)
		sizes, vectors = append(sizes, row.installedKb), append(vectors, row.embedding)
	}
	return []column.Column{
		column.NewColumnVarChar("name", names),
		column.NewColumnVarChar("section", parts),
		column.NewColumnInt32("installed_kb", sizes),
		column.NewColumnFloatVector("embedding", dim, vectors),
	}
}

// checkRows compares every field of every row with the model.
func checkRows(ctx context.Context, client *milvusclient.Client, collection string, want model) {
	iterator := must(client.QueryIterator(ctx, milvusclient.NewQueryIteratorOption(collection).WithBatchSize(500).
		WithOutputFields("name", "section", "installed_kb", "embedding").WithConsistencyLevel(entity.ClStrong)))
	seen := map[string]bool{}
	for {
		batch, err := iterator.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		check(err)
		for i := 0; i < batch.ResultCount; i++ {
			name := must(batch.GetColumn("name").GetAsString(i))
			row, known := want[name]
			vector := must(batch.GetColumn("embedding").Get(i)).(entity.FloatVector)
			if !known || seen[name] || must(batch.GetColumn("section").GetAsString(i)) != row.section ||
				must(batch.GetColumn("installed_kb").GetAsInt64(i)) != int64(row.installedKb) || !slices.Equal(vector, row.embedding) {
				log.Fatalf("%s: row %s must not be there, is there twice, or differs", collection, name)
			}
			seen[name] = true
		}
	}
	if len(seen) != len(want) {
		log.Fatalf("%s has %d rows, not %d", collection, len(seen), len(want))
	}
}

// checkSearch measures recall at 10 against exact arithmetic, over the rows of one section.
func checkSearch(ctx context.Context, client *milvusclient.Client, collection string, rows model, random *rand.Rand) {
	const queries = 20
	hits := 0
	for range queries {
		query := unitVector(random)
		var exact []float64
		for _, row := range rows {
			if row.section == "libs" {
				exact = append(exact, dot(query, row.embedding))
			}
		}
		slices.Sort(exact)
		least := float32(exact[len(exact)-10] - 1e-5)
		found := must(client.Search(ctx, milvusclient.NewSearchOption(collection, 10, []entity.Vector{entity.FloatVector(query)}).
			WithFilter(`section == "libs"`).WithAnnParam(index.NewHNSWAnnParam(128)).WithConsistencyLevel(entity.ClStrong)))
		for _, score := range found[0].Scores {
			if score >= least {
				hits++
			}
		}
	}
	recall := float64(hits) / (10 * queries)
	fmt.Printf("  section == \"libs\"   recall@10 %.3f\n", recall)
	if recall < 0.95 {
		log.Fatal("the recall is too low")
	}
}

func cairn(address string, arguments ...string) {
	command := exec.Command(filepath.Join("..", "..", "cairn"), append([]string{"--address", address}, arguments...)...)
	command.Stderr = os.Stderr
	check(command.Run())
}

func load(ctx context.Context, client *milvusclient.Client, collection string) {
	task := must(client.LoadCollection(ctx, milvusclient.NewLoadCollectionOption(collection)))
	check(task.Await(ctx))
}

func main() {
	ctx := context.Background()
	address := os.Getenv("CAIRN_ADDRESS")
	if address == "" {
		address = "127.0.0.1:19530"
	}
	client := must(milvusclient.New(ctx, &milvusclient.ClientConfig{Address: address}))
	defer client.Close(ctx)
	collection := fmt.Sprintf("packages_go_%d", os.Getpid())
	restored := collection + "_restored"

	random := rand.New(rand.NewSource(7))
	before := model{}
	for i := range rowCount {
		name := fmt.Sprintf("package-%d", i)
		before[name] = pkg{name, sections[i%len(sections)], int32(random.Intn(5000)), unitVector(random)}
	}

	schema := entity.NewSchema().
		WithField(entity.NewField().WithName("name").WithDataType(entity.FieldTypeVarChar).WithMaxLength(64).WithIsPrimaryKey(true)).
		WithField(entity.NewField().WithName("section").WithDataType(entity.FieldTypeVarChar).WithMaxLength(64)).
		WithField(entity.NewField().WithName("installed_kb").WithDataType(entity.FieldTypeInt32)).
		WithField(entity.NewField().WithName("embedding").WithDataType(entity.FieldTypeFloatVector).WithDim(dim))
	check(client.CreateCollection(ctx, milvusclient.NewCreateCollectionOption(collection, schema).
		WithIndexOptions(milvusclient.NewCreateIndexOption(collection, "embedding", index.NewHNSWIndex(entity.COSINE, 16, 200)))))
	must(client.Insert(ctx, milvusclient.NewColumnBasedInsertOption(collection, columns(before)...)))
	flush := must(client.Flush(ctx, milvusclient.NewFlushOption(collection)))
	check(flush.Await(ctx))
	load(ctx, client, collection)
	fmt.Printf("%s: %d rows inserted\n", collection, rowCount)
	checkSearch(ctx, client, collection, before, random)
	checkRows(ctx, client, collection, before)

	cairn(address, "snapshot", "create", "-c", collection, snapshot)
	after := model{}
	for name, row := range before {
		if row.section != "doc" {
			after[name] = row
		}
	}
	changed := before["package-0"]
	changed.installedKb = -1
	after[changed.name] = changed
	must(client.Delete(ctx, milvusclient.NewDeleteOption(collection).WithExpr(`section == "doc"`)))
	must(client.Upsert(ctx, milvusclient.NewColumnBasedInsertOption(collection, columns(model{changed.name: changed})...)))
	fmt.Println("snapshot taken; rows deleted and changed since")

	cairn(address, "snapshot", "restore", "-c", collection, snapshot, restored, "--wait")
	load(ctx, client, restored)
	checkRows(ctx, client, restored, before)
	checkSearch(ctx, client, restored, before, random)
	checkRows(ctx, client, collection, after)
	fmt.Printf("%s: as it was at the snapshot; %s: as it is now\n", restored, collection)

	cairn(address, "snapshot", "drop", "-c", collection, snapshot)
	check(client.DropCollection(ctx, milvusclient.NewDropCollectionOption(collection)))
	check(client.DropCollection(ctx, milvusclient.NewDropCollectionOption(restored)))
	fmt.Println("all is as it must be")
}
