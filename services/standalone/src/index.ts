export { type InnerRole, makeRole, type RoleHost, type RoleParts } from './roles.ts';
export { type Role, runRole } from './run-role.ts';
