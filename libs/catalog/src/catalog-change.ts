export type CatalogKind = 'database' | 'collection' | 'partition' | 'index' | 'alias' | 'load';

/** What changed; `collectionId` is 0 for a database. */
export interface CatalogChange {
  readonly kind: CatalogKind;
  readonly collectionId: number;
  readonly key: string;
}
