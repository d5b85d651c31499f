"""`membudget lint`: what is wrong or doubtful in a policy, before it is applied."""
