/** Cairn's own version: that of package.json, compared by a test. What Milvus clients are told is another (services/proxy, SERVER_VERSION). */
export const CAIRN_VERSION = '0.1.0';
