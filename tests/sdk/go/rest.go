package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/milvus-io/milvus/client/v2/column"
	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/index"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
	"github.com/milvus-io/milvus/pkg/v2/util/merr"
)

func partitions(ctx context.Context, client *milvusclient.Client) error {
	if err := client.CreatePartition(ctx, milvusclient.NewCreatePartitionOption(books, "new")); err != nil {
		return err
	}
	batch, err := columns(1000, 1010, "late")
	if err != nil {
		return err
	}
	if _, err := client.Insert(ctx, milvusclient.NewColumnBasedInsertOption(books, batch...).WithPartition("new")); err != nil {
		return err
	}
	result, err := client.Query(ctx, milvusclient.NewQueryOption(books).WithPartitions("new").WithOutputFields("count(*)"))
	if err != nil {
		return err
	}
	inside, err := result.GetColumn("count(*)").GetAsInt64(0)
	if err != nil {
		return err
	}
	names, err := client.ListPartitions(ctx, milvusclient.NewListPartitionOption(books))
	slices.Sort(names)
	return errors.Join(err, same("rows", inside, 10), same("partitions", strings.Join(names, " "), "_default new"))
}

func aliases(ctx context.Context, client *milvusclient.Client) error {
	if err := client.CreateAlias(ctx, milvusclient.NewCreateAliasOption(books, "go_library")); err != nil {
		return err
	}
	alias, err := client.DescribeAlias(ctx, milvusclient.NewDescribeAliasOption("go_library"))
	if err != nil {
		return err
	}
	names, err := client.ListAliases(ctx, milvusclient.NewListAliasesOption(books))
	if err != nil {
		return err
	}
	if _, err := client.DescribeCollection(ctx, milvusclient.NewDescribeCollectionOption("go_library")); err != nil {
		return err
	}
	err = client.DropAlias(ctx, milvusclient.NewDropAliasOption("go_library"))
	return errors.Join(err, same("alias of", alias.CollectionName, books), same("aliases", strings.Join(names, " "), "go_library"))
}

func databases(ctx context.Context, client *milvusclient.Client) error {
	if err := client.CreateDatabase(ctx, milvusclient.NewCreateDatabaseOption("go_db")); err != nil {
		return err
	}
	if err := client.UseDatabase(ctx, milvusclient.NewUseDatabaseOption("go_db")); err != nil {
		return err
	}
	inside, err := client.ListCollections(ctx, milvusclient.NewListCollectionOption())
	back := client.UseDatabase(ctx, milvusclient.NewUseDatabaseOption("default"))
	if err := errors.Join(err, back); err != nil {
		return err
	}
	names, err := client.ListDatabase(ctx, milvusclient.NewListDatabaseOption())
	if err != nil {
		return err
	}
	if err := client.DropDatabase(ctx, milvusclient.NewDropDatabaseOption("go_db")); err != nil {
		return err
	}
	return errors.Join(same("collections of an empty database", len(inside), 0), same("listed", slices.Contains(names, "go_db"), true))
}

// autoIDRows goes the short way: a collection from a dimension, rows as structs, keys given by the server.
func autoIDRows(ctx context.Context, client *milvusclient.Client) error {
	const name = "go_quick"
	option := milvusclient.SimpleCreateCollectionOptions(name, dim).WithAutoID(true).WithConsistencyLevel(entity.ClStrong)
	if err := client.CreateCollection(ctx, option); err != nil {
		return err
	}
	type quick struct {
		Vector []float32 `milvus:"name:vector;vector_dim:8"`
		Color  string    `milvus:"name:color"`
	}
	result, err := client.Insert(ctx, milvusclient.NewRowBasedInsertOption(name, &quick{vectorOf(1, 0), "red"}, &quick{vectorOf(2, 0), "blue"}))
	if err != nil {
		return err
	}
	found, err := client.Search(ctx, milvusclient.NewSearchOption(name, 1, []entity.Vector{entity.FloatVector(vectorOf(2, 0))}).WithOutputFields("color"))
	if err != nil {
		return err
	}
	color, err := found[0].GetColumn("color").GetAsString(0)
	if err != nil {
		return err
	}
	drop := client.DropCollection(ctx, milvusclient.NewDropCollectionOption(name))
	return errors.Join(drop, same("keys given", result.IDs.Len(), 2), same("color", color, "blue"))
}

func badInput(ctx context.Context, client *milvusclient.Client) error {
	vector := []entity.Vector{entity.FloatVector(vectorOf(1, 0))}
	searching := func(option milvusclient.SearchOption) error {
		_, err := client.Search(ctx, option)
		return err
	}
	querying := func(filter string) error {
		_, err := client.Query(ctx, milvusclient.NewQueryOption(books).WithFilter(filter).WithOutputFields("id"))
		return err
	}
	inserting := func(columns ...column.Column) error {
		_, err := client.Insert(ctx, milvusclient.NewColumnBasedInsertOption("go_strict", columns...))
		return err
	}
	strict := entity.NewSchema().
		WithField(entity.NewField().WithName("id").WithDataType(entity.FieldTypeInt64).WithIsPrimaryKey(true)).
		WithField(entity.NewField().WithName("short").WithDataType(entity.FieldTypeVarChar).WithMaxLength(4)).
		WithField(entity.NewField().WithName("v").WithDataType(entity.FieldTypeFloatVector).WithDim(2))
	if err := client.CreateCollection(ctx, milvusclient.NewCreateCollectionOption("go_strict", strict)); err != nil {
		return err
	}
	id := column.NewColumnInt64("id", []int64{1})
	short := column.NewColumnVarChar("short", []string{"abcd"})
	nan := float32(0)
	nan /= nan
	_, loading := client.LoadCollection(ctx, milvusclient.NewLoadCollectionOption("go_strict"))
	_, indexing := client.CreateIndex(ctx, milvusclient.NewCreateIndexOption("go_strict", "v", index.NewHNSWIndex(entity.HAMMING, 16, 100)))
	_, noField := client.CreateIndex(ctx, milvusclient.NewCreateIndexOption("go_strict", "nothing", index.NewHNSWIndex(entity.L2, 16, 100)))
	_, describing := client.DescribeCollection(ctx, milvusclient.NewDescribeCollectionOption("go_nowhere"))
	_, deleting := client.Delete(ctx, milvusclient.NewDeleteOption(books).WithExpr("pages =="))
	cases := []struct {
		what string
		err  error
		code int32
		says string
	}{
		{"unknown collection", describing, 100, "go_nowhere"},
		{"collection exists with another schema", client.CreateCollection(ctx, milvusclient.NewCreateCollectionOption("go_strict", strict.WithDescription("x"))), 1100, "go_strict"},
		{"bad collection name", client.CreateCollection(ctx, milvusclient.NewCreateCollectionOption("go strict", strict)), 1100, "go strict"},
		{"load without index", loading, 700, "index"},
		{"metric of another type", indexing, 1100, "HAMMING"},
		{"index on an unknown field", noField, 1100, "nothing"},
		{"wrong dimension", inserting(id, short, column.NewColumnFloatVector("v", 3, [][]float32{{1, 2, 3}})), 0, "dim"},
		{"not a number", inserting(id, short, column.NewColumnFloatVector("v", 2, [][]float32{{nan, 1}})), 1100, "NaN"},
		{"text too long", inserting(id, column.NewColumnVarChar("short", []string{"abcde"}), column.NewColumnFloatVector("v", 2, [][]float32{{1, 2}})), 1100, "short"},
		{"missing field", inserting(id, column.NewColumnFloatVector("v", 2, [][]float32{{1, 2}})), 0, "short"},
		{"search of an unknown field", searching(milvusclient.NewSearchOption(books, 1, vector).WithANNSField("nothing")), 1100, "nothing"},
		{"search with a wrong dimension", searching(milvusclient.NewSearchOption(books, 1, []entity.Vector{entity.FloatVector{1, 2}}).WithANNSField("dense")), 1100, "dim"},
		{"limit of zero", searching(milvusclient.NewSearchOption(books, 0, vector).WithANNSField("dense")), 1100, "[0]"},
		{"search that is not loaded", searching(milvusclient.NewSearchOption("go_strict", 1, []entity.Vector{entity.FloatVector{1, 2}}).WithANNSField("v")), 101, "go_strict"},
		{"filter with an error", querying("pages >> 3 4"), 1100, "4"},
		{"filter on an unknown function", querying("nothing(pages)"), 1100, "nothing"},
		{"delete with an error", deleting, 1100, "pages"},
		{"unknown partition", client.DropPartition(ctx, milvusclient.NewDropPartitionOption("go_nowhere", "x")), 100, "go_nowhere"},
		{"unknown database", client.UseDatabase(ctx, milvusclient.NewUseDatabaseOption("go_nowhere")), 800, "go_nowhere"},
		{"a user", client.CreateUser(ctx, milvusclient.NewCreateUserOption("someone", "Secret123")), 10, "not supported"},
	}
	var wrong []error
	for _, one := range cases {
		if one.err == nil {
			wrong = append(wrong, fmt.Errorf("%s: no error", one.what))
			continue
		}
		// Code 0: the client itself refuses, before anything is sent.
		if code := merr.Code(one.err); (one.code != 0 && code != one.code) || !strings.Contains(one.err.Error(), one.says) {
			wrong = append(wrong, fmt.Errorf("%s: code %d instead of %d, says: %s", one.what, code, one.code, one.err))
		}
	}
	_ = client.UseDatabase(ctx, milvusclient.NewUseDatabaseOption("default"))
	wrong = append(wrong, client.DropCollection(ctx, milvusclient.NewDropCollectionOption("go_strict")))
	return errors.Join(wrong...)
}

func drop(ctx context.Context, client *milvusclient.Client) error {
	if err := client.ReleaseCollection(ctx, milvusclient.NewReleaseCollectionOption(books)); err != nil {
		return err
	}
	if err := client.DropIndex(ctx, milvusclient.NewDropIndexOption(books, "pages_index")); err != nil {
		return err
	}
	if err := client.RenameCollection(ctx, milvusclient.NewRenameCollectionOption(books, "go_old_books")); err != nil {
		return err
	}
	if err := client.DropCollection(ctx, milvusclient.NewDropCollectionOption("go_old_books")); err != nil {
		return err
	}
	has, err := client.HasCollection(ctx, milvusclient.NewHasCollectionOption("go_old_books"))
	return errors.Join(err, same("still there", has, false))
}
