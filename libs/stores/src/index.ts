/** From configuration to the three stores. The only room that names tenants; everyone else knows the interfaces. */
export { openStores, type Stores } from './open-stores.ts';
