package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"

	"github.com/milvus-io/milvus/client/v2/column"
	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/index"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
)

const (
	books = "go_books"
	dim   = 8
	rows  = 300
)

// vectorOf is the vector of a row, spread over the directions by the key; `field` makes the two vector fields differ.
func vectorOf(id int64, field int) []float32 {
	vector := make([]float32, dim)
	for i := range vector {
		vector[i] = float32(math.Sin(float64(id*31+int64(i)*7) + float64(field)))
	}
	return vector
}

func l2(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		sum += float64(a[i]-b[i]) * float64(a[i]-b[i])
	}
	return sum
}

// nearest gives the keys of the `limit` nearest of the rows that `keep` takes, by exact arithmetic.
func nearest(query []float32, limit int, keep func(id int64) bool) []int64 {
	ids := []int64{}
	for id := int64(0); id < rows; id++ {
		if keep(id) {
			ids = append(ids, id)
		}
	}
	sort.Slice(ids, func(i, j int) bool { return l2(query, vectorOf(ids[i], 0)) < l2(query, vectorOf(ids[j], 0)) })
	return ids[:limit]
}

func same[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: %v instead of %v", what, got, want)
	}
	return nil
}

func sameKeys(what string, got column.Column, want []int64) error {
	if got.Len() != len(want) {
		return fmt.Errorf("%s: %d keys instead of %d", what, got.Len(), len(want))
	}
	for i, id := range want {
		key, err := got.GetAsInt64(i)
		if err != nil {
			return err
		}
		if key != id {
			return fmt.Errorf("%s: key %d at place %d instead of %d", what, key, i, id)
		}
	}
	return nil
}

func version(ctx context.Context, client *milvusclient.Client) error {
	text, err := client.GetServerVersion(ctx, milvusclient.NewGetServerVersionOption())
	if err == nil && text == "" {
		return errors.New("the version is empty")
	}
	return err
}

func create(ctx context.Context, client *milvusclient.Client) error {
	schema := entity.NewSchema().WithDynamicFieldEnabled(true).
		WithField(entity.NewField().WithName("id").WithDataType(entity.FieldTypeInt64).WithIsPrimaryKey(true)).
		WithField(entity.NewField().WithName("title").WithDataType(entity.FieldTypeVarChar).WithMaxLength(64)).
		WithField(entity.NewField().WithName("pages").WithDataType(entity.FieldTypeInt32)).
		WithField(entity.NewField().WithName("rating").WithDataType(entity.FieldTypeDouble).WithNullable(true)).
		WithField(entity.NewField().WithName("meta").WithDataType(entity.FieldTypeJSON)).
		WithField(entity.NewField().WithName("dense").WithDataType(entity.FieldTypeFloatVector).WithDim(dim)).
		WithField(entity.NewField().WithName("other").WithDataType(entity.FieldTypeFloatVector).WithDim(dim))
	option := milvusclient.NewCreateCollectionOption(books, schema).WithShardNum(2).WithConsistencyLevel(entity.ClStrong)
	if err := client.CreateCollection(ctx, option); err != nil {
		return err
	}
	has, err := client.HasCollection(ctx, milvusclient.NewHasCollectionOption(books))
	if err != nil || !has {
		return fmt.Errorf("HasCollection says %v, %v", has, err)
	}
	described, err := client.DescribeCollection(ctx, milvusclient.NewDescribeCollectionOption(books))
	if err != nil {
		return err
	}
	return errors.Join(
		same("fields", len(described.Schema.Fields), 7),
		same("dynamic field", described.Schema.EnableDynamicField, true),
		same("shards", described.ShardNum, 2),
		same("consistency", described.ConsistencyLevel, entity.ClStrong),
	)
}

// columns of the rows first, first + 1, … below end; the shelf is a dynamic field, every third rating is null.
func columns(first, end int64, title string) ([]column.Column, error) {
	var ids []int64
	var titles, shelves []string
	var pages []int32
	var ratings []float64
	var valid []bool
	var metas [][]byte
	var dense, other [][]float32
	for id := first; id < end; id++ {
		ids = append(ids, id)
		titles = append(titles, fmt.Sprintf("%s %d", title, id))
		pages = append(pages, int32(id%50))
		valid = append(valid, id%3 != 0)
		if id%3 != 0 {
			ratings = append(ratings, float64(id)/10)
		}
		metas = append(metas, []byte(fmt.Sprintf(`{"n":%d,"tags":["t%d"]}`, id, id%4)))
		shelves = append(shelves, fmt.Sprintf("s%d", id%3))
		dense = append(dense, vectorOf(id, 0))
		other = append(other, vectorOf(id, 1))
	}
	rating, err := column.NewNullableColumnDouble("rating", ratings, valid)
	return []column.Column{
		column.NewColumnInt64("id", ids),
		column.NewColumnVarChar("title", titles),
		column.NewColumnInt32("pages", pages),
		rating,
		column.NewColumnJSONBytes("meta", metas),
		column.NewColumnVarChar("shelf", shelves),
		column.NewColumnFloatVector("dense", dim, dense),
		column.NewColumnFloatVector("other", dim, other),
	}, err
}

func insert(ctx context.Context, client *milvusclient.Client) error {
	// Two batches: one lies in a sealed segment when it is searched, one grows.
	for _, first := range []int64{0, rows / 2} {
		batch, err := columns(first, first+rows/2, "book")
		if err != nil {
			return err
		}
		result, err := client.Insert(ctx, milvusclient.NewColumnBasedInsertOption(books, batch...))
		if err != nil {
			return err
		}
		if err := errors.Join(same("insert count", result.InsertCount, rows/2), same("ids", result.IDs.Len(), rows/2)); err != nil {
			return err
		}
		if first > 0 {
			continue
		}
		task, err := client.Flush(ctx, milvusclient.NewFlushOption(books))
		if err != nil {
			return err
		}
		if err := task.Await(ctx); err != nil {
			return err
		}
	}
	return nil
}

func indexes(ctx context.Context, client *milvusclient.Client) error {
	for field, params := range map[string]index.Index{
		"dense": index.NewHNSWIndex(entity.L2, 16, 100),
		"other": index.NewIvfFlatIndex(entity.COSINE, 16),
		"pages": index.NewInvertedIndex(),
	} {
		task, err := client.CreateIndex(ctx, milvusclient.NewCreateIndexOption(books, field, params).WithIndexName(field+"_index"))
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		if err := task.Await(ctx); err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
	}
	names, err := client.ListIndexes(ctx, milvusclient.NewListIndexOption(books))
	if err != nil {
		return err
	}
	described, err := client.DescribeIndex(ctx, milvusclient.NewDescribeIndexOption(books, "dense_index"))
	if err != nil {
		return err
	}
	return errors.Join(same("indexes", len(names), 3), same("type", described.Params()["index_type"], "HNSW"), same("M", described.Params()["M"], "16"))
}

func load(ctx context.Context, client *milvusclient.Client) error {
	task, err := client.LoadCollection(ctx, milvusclient.NewLoadCollectionOption(books))
	if err != nil {
		return err
	}
	if err := task.Await(ctx); err != nil {
		return err
	}
	state, err := client.GetLoadState(ctx, milvusclient.NewGetLoadStateOption(books))
	if err != nil {
		return err
	}
	return same("load state", state.State, entity.LoadStateLoaded)
}

func search(ctx context.Context, client *milvusclient.Client) error {
	query := vectorOf(1000, 0)
	option := milvusclient.NewSearchOption(books, 10, []entity.Vector{entity.FloatVector(query), entity.FloatVector(vectorOf(7, 0))}).
		WithANNSField("dense").WithOutputFields("title", "pages", "rating", "meta", "shelf", "dense").WithAnnParam(index.NewHNSWAnnParam(300))
	results, err := client.Search(ctx, option)
	if err != nil {
		return err
	}
	if err := errors.Join(
		same("result sets", len(results), 2),
		sameKeys("first query", results[0].IDs, nearest(query, 10, func(int64) bool { return true })),
		sameKeys("a row's own vector", results[1].IDs.Slice(0, 1), []int64{7}),
	); err != nil {
		return err
	}
	title, err := results[1].GetColumn("title").GetAsString(0)
	if err != nil {
		return err
	}
	pages, err := results[1].GetColumn("pages").GetAsInt64(0)
	if err != nil {
		return err
	}
	vector, err := results[1].GetColumn("dense").Get(0)
	if err != nil {
		return err
	}
	first := results[0].IDs
	for place := 0; place < first.Len(); place++ {
		id, _ := first.GetAsInt64(place)
		null, err := results[0].GetColumn("rating").IsNull(place)
		if err != nil {
			return err
		}
		if err := same(fmt.Sprintf("rating of %d is null", id), null, id%3 == 0); err != nil {
			return err
		}
	}
	return errors.Join(
		same("title", title, "book 7"),
		same("pages", pages, 7),
		same("distance", results[1].Scores[0], 0),
		same("vector", l2(vector.(entity.FloatVector), vectorOf(7, 0)), 0),
	)
}

func filteredSearch(ctx context.Context, client *milvusclient.Client) error {
	query := vectorOf(1000, 0)
	for filter, keep := range map[string]func(id int64) bool{
		"pages < 10":                        func(id int64) bool { return id%50 < 10 },
		`shelf == "s1" and rating > 5`:      func(id int64) bool { return id%3 == 1 && id > 50 },
		`meta["n"] in [3, 4, 5, 6, 7, 8]`:   func(id int64) bool { return id >= 3 && id <= 8 },
		`json_contains(meta["tags"], "t2")`: func(id int64) bool { return id%4 == 2 },
		"rating is null":                    func(id int64) bool { return id%3 == 0 },
	} {
		results, err := client.Search(ctx, milvusclient.NewSearchOption(books, 5, []entity.Vector{entity.FloatVector(query)}).
			WithANNSField("dense").WithFilter(filter))
		if err != nil {
			return fmt.Errorf("%s: %w", filter, err)
		}
		if err := sameKeys(filter, results[0].IDs, nearest(query, 5, keep)); err != nil {
			return err
		}
	}
	results, err := client.Search(ctx, milvusclient.NewSearchOption(books, 5, []entity.Vector{entity.FloatVector(query)}).
		WithANNSField("dense").WithFilter("pages in {wanted}").WithTemplateParam("wanted", []int64{4, 9}))
	if err != nil {
		return fmt.Errorf("template: %w", err)
	}
	return sameKeys("template", results[0].IDs, nearest(query, 5, func(id int64) bool { return id%50 == 4 || id%50 == 9 }))
}

func hybrid(ctx context.Context, client *milvusclient.Client) error {
	results, err := client.HybridSearch(ctx, milvusclient.NewHybridSearchOption(books, 3,
		milvusclient.NewAnnRequest("dense", 10, entity.FloatVector(vectorOf(7, 0))),
		milvusclient.NewAnnRequest("other", 10, entity.FloatVector(vectorOf(7, 1))),
	).WithReranker(milvusclient.NewRRFReranker()))
	if err != nil {
		return err
	}
	return errors.Join(same("rows", results[0].ResultCount, 3), sameKeys("first of both", results[0].IDs.Slice(0, 1), []int64{7}))
}

func count(ctx context.Context, client *milvusclient.Client, filter string) (int64, error) {
	result, err := client.Query(ctx, milvusclient.NewQueryOption(books).WithFilter(filter).WithOutputFields("count(*)"))
	if err != nil {
		return 0, err
	}
	return result.GetColumn("count(*)").GetAsInt64(0)
}

func query(ctx context.Context, client *milvusclient.Client) error {
	all, err := count(ctx, client, "")
	if err != nil {
		return err
	}
	few, err := count(ctx, client, "pages == 7")
	if err != nil {
		return err
	}
	result, err := client.Query(ctx, milvusclient.NewQueryOption(books).WithFilter("id in [5, 290]").WithOutputFields("id", "title", "shelf", "meta"))
	if err != nil {
		return err
	}
	meta, err := result.GetColumn("meta").Get(0)
	if err != nil {
		return err
	}
	shelf, err := result.GetColumn("shelf").GetAsString(1)
	if err != nil {
		return err
	}
	return errors.Join(same("all", all, rows), same("filtered", few, rows/50), sameKeys("rows", result.GetColumn("id"), []int64{5, 290}),
		same("meta", string(meta.([]byte)), `{"n":5,"tags":["t1"]}`), same("shelf", shelf, "s2"))
}

func get(ctx context.Context, client *milvusclient.Client) error {
	result, err := client.Get(ctx, milvusclient.NewQueryOption(books).WithIDs(column.NewColumnInt64("id", []int64{3, 9999})).WithOutputFields("id", "rating"))
	if err != nil {
		return err
	}
	null, err := result.GetColumn("rating").IsNull(0)
	if err != nil {
		return err
	}
	return errors.Join(sameKeys("keys", result.GetColumn("id"), []int64{3}), same("null", null, true))
}

func queryIterator(ctx context.Context, client *milvusclient.Client) error {
	iterator, err := client.QueryIterator(ctx, milvusclient.NewQueryIteratorOption(books).WithBatchSize(64).WithFilter("pages < 25").WithOutputFields("id"))
	if err != nil {
		return err
	}
	seen := map[int64]bool{}
	for {
		batch, err := iterator.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for i := 0; i < batch.ResultCount; i++ {
			id, err := batch.GetColumn("id").GetAsInt64(i)
			if err != nil {
				return err
			}
			if seen[id] || id%50 >= 25 {
				return fmt.Errorf("key %d comes twice or does not match", id)
			}
			seen[id] = true
		}
	}
	return same("rows", len(seen), rows/2)
}

func searchIterator(ctx context.Context, client *milvusclient.Client) error {
	iterator, err := client.SearchIterator(ctx, milvusclient.NewSearchIteratorOption(books, entity.FloatVector(vectorOf(7, 0))).
		WithANNSField("dense").WithBatchSize(40).WithIteratorLimit(100))
	if err != nil {
		return err
	}
	seen, last := map[int64]bool{}, float32(-1)
	for {
		batch, err := iterator.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for i := 0; i < batch.ResultCount; i++ {
			id, err := batch.IDs.GetAsInt64(i)
			if err != nil {
				return err
			}
			if seen[id] || batch.Scores[i] < last {
				return fmt.Errorf("key %d comes twice or out of order (%v after %v)", id, batch.Scores[i], last)
			}
			seen[id], last = true, batch.Scores[i]
		}
	}
	return same("rows", len(seen), 100)
}

func upsert(ctx context.Context, client *milvusclient.Client) error {
	batch, err := columns(0, 10, "second edition")
	if err != nil {
		return err
	}
	result, err := client.Upsert(ctx, milvusclient.NewColumnBasedInsertOption(books, batch...))
	if err != nil {
		return err
	}
	changed, err := count(ctx, client, `title like "second%"`)
	if err != nil {
		return err
	}
	all, err := count(ctx, client, "")
	return errors.Join(err, same("upsert count", result.UpsertCount, 10), same("changed", changed, 10), same("all", all, rows))
}

func remove(ctx context.Context, client *milvusclient.Client) error {
	byKeys, err := client.Delete(ctx, milvusclient.NewDeleteOption(books).WithInt64IDs("id", []int64{0, 1, 2}))
	if err != nil {
		return err
	}
	if _, err := client.Delete(ctx, milvusclient.NewDeleteOption(books).WithExpr("pages == 49")); err != nil {
		return err
	}
	all, err := count(ctx, client, "")
	return errors.Join(err, same("deleted", byKeys.DeleteCount, 3), same("all", all, rows-3-rows/50))
}
