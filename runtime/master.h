/* The process that carries no traffic: it binds, forks, watches, conducts reloads, and buries. */
#ifndef GW_MASTER_H
#define GW_MASTER_H

/* Runs until it is told to end; returns the exit code (0, 1 configuration, 3 could not start). */
int gw_master_run(const char *file, const char *lua_dir);

#endif
